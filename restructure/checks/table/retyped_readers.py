"""Views and functions that read a column which has another type in the new table.

They are made anew and show the new type; whoever reads them should know. Needs the shadow, so
preflight asks it.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.errors import Finding
from restructure.postgres.connect import Connection
from restructure.shape.carry.family import column_heirs, family
from restructure.shape.made import Shadow
from restructure.shape.table import Table, read_relation

NAME = "retyped_readers"

_READERS = """
SELECT CASE WHEN w.oid IS NULL THEN 'function' WHEN c.relkind = 'm' THEN 'materialized view'
            ELSE 'view' END AS kind,
       CASE WHEN w.oid IS NULL THEN p.oid::regprocedure::text
            ELSE n.nspname || '.' || c.relname END AS name,
       pg_catalog.array_agg(DISTINCT a.attname::text)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
LEFT JOIN pg_catalog.pg_rewrite w
  ON d.classid = w.tableoid AND d.objid = w.oid AND w.ev_type = '1'
LEFT JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_proc p ON d.classid = p.tableoid AND d.objid = p.oid
WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = ANY(%(tree)s::oid[])
  AND d.refobjsubid > 0 AND a.attname = ANY(%(columns)s) AND (w.oid IS NOT NULL OR p.oid IS NOT NULL)
GROUP BY 1, 2 ORDER BY 1, 2
"""


def find(connection: Connection, source: Table, shadow: Shadow) -> Iterator[Finding]:
    """Warn of each that reads such a column itself."""
    made = read_relation(connection, shadow.relation.oid)
    heirs = column_heirs(source, shadow.mapping)
    retyped: dict[str, str] = {}
    for old in source.columns:
        new = made.column(heirs.get(old.name, ""))
        if new is not None and new.type_sql != old.type_sql:
            retyped[old.name] = new.type_sql
    tree = [member.relation.oid for member in family(connection, source.relation)]
    parameters = {"tree": tree, "columns": list(retyped)}
    for kind, name, columns in connection.execute(_READERS, parameters).fetchall():
        what = ", ".join(f"{column}, which becomes {retyped[column]}" for column in columns)
        yield Finding(
            NAME,
            f"{kind} {name} reads {what}",
            "It is made anew. Where it shows that column it shows the new type, and so does what "
            "reads it: look whether clients and declared results can hold that.",
            refuses=False,
        )
