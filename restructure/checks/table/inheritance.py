"""A table that is part of another one cannot be swapped alone."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "inheritance"

_PARENTS = """
SELECT (pg_catalog.pg_identify_object(p.tableoid, p.oid, 0)).identity, p.relkind = 'p'
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
WHERE i.inhrelid = %(oid)s ORDER BY i.inhseqno
"""
_CHILDREN = """
SELECT (pg_catalog.pg_identify_object(c.tableoid, c.oid, 0)).identity
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(oid)s AND NOT c.relispartition ORDER BY c.oid
"""
_TYPED = """
SELECT pg_catalog.format_type(reloftype, NULL) FROM pg_catalog.pg_class
WHERE oid = %(oid)s AND reloftype <> 0
"""


def find(context: CheckContext) -> Iterator[Finding]:
    table = context.table.relation
    for parent, partitioned in context.rows(_PARENTS, oid=table.oid):
        yield Finding(
            NAME,
            f"{table} is a {'partition' if partitioned else 'child'} of {parent}",
            f"Restructure {parent} as a whole."
            if partitioned
            else f"ALTER TABLE {table} NO INHERIT {parent} first.",
        )
    for (child,) in context.rows(_CHILDREN, oid=table.oid):
        yield Finding(
            NAME,
            f"{child} inherits from {table}",
            f"ALTER TABLE {child} NO INHERIT {table} first, or use declarative partitions.",
        )
    for (of,) in context.rows(_TYPED, oid=table.oid):
        yield Finding(
            NAME,
            f"{table} is a typed table of {of}",
            f"ALTER TABLE {table} NOT OF first.",
        )
