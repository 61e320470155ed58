"""Columns that refer to the new key and are narrower than it: they overflow next.

Needs the shadow, for only PostgreSQL knows what the plan makes of a column: preflight asks it.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.errors import Finding
from restructure.postgres.connect import Connection
from restructure.shape.carry.family import column_heirs, family
from restructure.shape.made import Shadow
from restructure.shape.table import Table

NAME = "narrow_references"

_WIDTH = """CASE coalesce(nullif(t.typbasetype, 0), t.oid)
    WHEN 'pg_catalog.int2'::regtype THEN 2 WHEN 'pg_catalog.int4'::regtype THEN 4
    WHEN 'pg_catalog.int8'::regtype THEN 8 END"""

_COLUMNS = f"""
SELECT a.attname, pg_catalog.format_type(a.atttypid, NULL), {_WIDTH}
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
"""

# What refers to a column that refers to the key holds the key's values too.
_REFERENCES = f"""
WITH RECURSIVE reached (oid, number, key) AS (
    SELECT k.conrelid, c.number, a.attname
    FROM pg_catalog.pg_constraint k
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS c (number, referenced)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = c.referenced
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY(%(tree)s::oid[])
    UNION
    SELECT k.conrelid, c.number, r.key
    FROM reached r
    JOIN pg_catalog.pg_constraint k
      ON k.confrelid = r.oid AND k.contype = 'f' AND k.conparentid = 0
    CROSS JOIN LATERAL unnest(k.conkey, k.confkey) AS c (number, referenced)
    WHERE c.referenced = r.number)
SELECT DISTINCT r.key, r.oid = ANY(%(tree)s::oid[]), n.nspname || '.' || o.relname, a.attname,
       pg_catalog.format_type(a.atttypid, NULL), {_WIDTH}
FROM reached r
JOIN pg_catalog.pg_class o ON o.oid = r.oid
JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum = r.number
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
ORDER BY 3, 4, 1
"""


def find(connection: Connection, source: Table, shadow: Shadow) -> Iterator[Finding]:
    """Warn of each, with its type and the largest value that it can hold."""
    heirs = column_heirs(source, shadow.mapping)
    rows = connection.execute(_COLUMNS, [shadow.relation.oid]).fetchall()
    made = {name: (kind, width) for name, kind, width in rows}
    tree = [member.relation.oid for member in family(connection, source.relation)]
    for key, ours, table, name, old, least in connection.execute(_REFERENCES, {"tree": tree}):
        new = heirs.get(key, key)
        wide, width = made.get(new, ("", None))
        column, kind, narrow = name, old, least
        if ours:
            column = heirs.get(name, name)
            kind, narrow = made.get(column, ("", None))
        if not width or not narrow or narrow >= width:
            continue
        yield Finding(
            NAME,
            f"{table}.{column} is {kind}: it can refer to no row of {source.relation} whose "
            f"{new} is above {2 ** (8 * narrow - 1) - 1}, and {new} is {wide} then",
            f"Add ALTER COLUMN {column} TYPE {wide} to this plan."
            if ours
            else f"Widen it before such values come, in a job of its own for {table}.",
            refuses=False,
        )
