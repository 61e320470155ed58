"""What hangs on a table: one kind of dependent per file, listed in kinds.py in the swap's order.

The frame: ``kind`` (what a kind is told and answers), ``rehearse`` (at check, on the empty shadow),
``prepare`` (ahead of the swap, outside any lock), ``swap`` (the statements in it), ``inventory``
(compared before and after), ``tripwire`` (guards the retired table).

What several kinds share: ``dependents`` (what hangs on the table, from pg_depend), ``family`` (its
partitions), ``things`` (single objects made again in the swap), ``elsewhere`` (objects of other
tables bound anew), ``closure``, ``recipe``, ``staging`` and ``bindings`` (what is made anew beside
the shadow, in the order in which it needs each other).

The table's own: ``ownership``, ``comments``, ``settings``, ``sequences``, ``limits``,
``foreign_keys``; and for a table within another, ``membership`` with ``above`` and ``bound``.
"""
