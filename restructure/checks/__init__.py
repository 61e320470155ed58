"""Preflight: one fact per file, each finding with its remedy.

``server/`` asks whether this server and role can do it at all, ``table/`` whether this table can;
``registry.py`` lists and runs them. Checks read catalogs and change nothing.
"""
