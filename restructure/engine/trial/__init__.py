"""A trial of the transform over the source's rows: what the new table would refuse. Nothing is written.

``lengths``, ``new_row``: SQL that makes the new row beside the old one. ``demands``, ``bounds``,
``references``: what the new table asks of it. ``scan``, ``uniques``: look. ``tally``: count.
"""
