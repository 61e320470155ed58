"""Tables that an extension made, or manages, are its own to change."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "extension"

_MEMBER = """
SELECT e.extname FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = %(oid)s
  AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
"""
_HYPERTABLE = """
SELECT true FROM _timescaledb_catalog.hypertable
WHERE schema_name = %(schema)s AND table_name = %(name)s
"""
_DISTRIBUTED = (
    "SELECT true FROM pg_catalog.pg_dist_partition WHERE logicalrelid = %(oid)s::regclass"
)


def find(context: CheckContext) -> Iterator[Finding]:
    table = context.table.relation
    if table.schema in ("pg_catalog", "information_schema", "pg_toast", "restructure"):
        yield Finding(NAME, f"{table} is a system table", "Name a table of the application.")
    for relation in context.tree:
        for (extension,) in context.rows(_MEMBER, oid=relation.oid):
            yield Finding(
                NAME,
                f"{relation} belongs to extension {extension}",
                f"ALTER EXTENSION {extension} DROP TABLE {relation} first, if it really is yours.",
            )
    if _exists(context, "_timescaledb_catalog.hypertable") and context.rows(
        _HYPERTABLE, schema=table.schema, name=table.name
    ):
        yield Finding(
            NAME,
            f"{table} is a TimescaleDB hypertable",
            "Its chunks are tables of TimescaleDB's own: use that extension's tools.",
        )
    if _exists(context, "pg_catalog.pg_dist_partition") and context.rows(
        _DISTRIBUTED, oid=table.oid
    ):
        yield Finding(
            NAME,
            f"{table} is distributed by Citus",
            "Its rows are on other servers: use that extension's tools.",
        )


def _exists(context: CheckContext, name: str) -> bool:
    return bool(context.row("SELECT pg_catalog.to_regclass(%(name)s)", name=name) != (None,))
