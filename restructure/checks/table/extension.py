"""Tables that an extension made, or manages, are its own to change.

Catalogs as in timescaledb's sql/pre_install/tables.sql and Citus' documentation ("Citus Tables and
Views"). What not every version has is read through to_jsonb.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import LiteralString

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.relation import Relation

NAME = "extension"

_MEMBER = """
SELECT e.extname FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = %(oid)s
  AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
"""

_TIMESCALE: tuple[tuple[str, LiteralString], ...] = (
    (
        "_timescaledb_catalog.hypertable",
        """
        SELECT CASE WHEN (to_jsonb(h) ->> 'compression_state')::int = 2
                    THEN 'what TimescaleDB compresses a hypertable into'
                    ELSE 'a TimescaleDB hypertable' || CASE
                         WHEN (to_jsonb(h) ->> 'compression_state')::int = 1
                           OR (to_jsonb(h) ->> 'compressed_hypertable_id') IS NOT NULL
                         THEN ' with compressed chunks' ELSE '' END END
        FROM _timescaledb_catalog.hypertable h
        WHERE h.schema_name = %(schema)s AND h.table_name = %(name)s
        """,
    ),
    (
        "_timescaledb_catalog.chunk",
        """
        SELECT CASE WHEN (to_jsonb(h) ->> 'compression_state')::int = 2 THEN 'a compressed chunk'
                    ELSE 'a chunk' END
               || ' of a TimescaleDB hypertable'
               || CASE WHEN h.schema_name = '_timescaledb_internal' OR h.id IS NULL THEN ''
                       ELSE ', ' || h.schema_name || '.' || h.table_name END
        FROM _timescaledb_catalog.chunk c
        LEFT JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id
        WHERE to_jsonb(c) ->> 'schema_name' = %(schema)s
          AND to_jsonb(c) ->> 'table_name' = %(name)s
          AND (to_jsonb(c) ->> 'dropped') IS DISTINCT FROM 'true'
           OR to_jsonb(c) ->> 'relid' IN (%(oid)s::oid::text, %(oid)s::oid::regclass::text)
        """,
    ),
    (
        "_timescaledb_catalog.compression_settings",
        """
        SELECT 'a compressed chunk of a TimescaleDB hypertable'
        FROM _timescaledb_catalog.compression_settings s
        WHERE to_jsonb(s) ->> 'compress_relid'
              IN (%(oid)s::oid::text, %(oid)s::oid::regclass::text)
        """,
    ),
)
_CITUS: tuple[tuple[str, LiteralString], ...] = (
    (
        "pg_catalog.pg_dist_partition",
        """
        SELECT CASE WHEN p.partmethod <> 'n' THEN 'distributed by Citus'
                    WHEN to_jsonb(p) ->> 'repmodel' = 't' THEN 'a reference table of Citus'
                    WHEN (to_jsonb(p) ->> 'colocationid')::int > 0
                    THEN 'distributed by Citus as a single shard'
                    ELSE 'a local table that Citus manages' END
        FROM pg_catalog.pg_dist_partition p WHERE p.logicalrelid::oid = %(oid)s
        """,
    ),
    (
        "pg_catalog.pg_dist_shard",
        """
        SELECT 'a shard of ' || s.logicalrelid::oid::regclass::text || ', a table of Citus'
        FROM pg_catalog.pg_dist_shard s
        JOIN pg_catalog.pg_class c ON c.oid = s.logicalrelid::oid
        WHERE s.shardid::text = substring(%(name)s FROM '_([0-9]+)$')
          AND left(%(name)s, 20) = left(c.relname || '_' || s.shardid, 20)
          AND c.relname <> %(name)s
        """,
    ),
)

_SYSTEM = ("pg_catalog", "information_schema", "pg_toast", "restructure")


def find(context: CheckContext) -> Iterator[Finding]:
    table = context.table.relation
    if table.schema in _SYSTEM:
        yield Finding(NAME, f"{table} is a system table", "Name a table of the application.")
    for relation in context.tree:
        for (extension,) in context.rows(_MEMBER, oid=relation.oid):
            yield Finding(
                NAME,
                f"{relation} belongs to extension {extension}",
                f"ALTER EXTENSION {extension} DROP TABLE {relation} first, if it really is yours.",
            )
        for what in _managed(context, relation, _TIMESCALE):
            yield Finding(
                NAME,
                f"{relation} is {what}",
                "TimescaleDB keeps what belongs together in catalogs of its own, which a swap would "
                "leave behind. Make a new hypertable of the wanted shape (create_hypertable) and "
                "copy chunk by chunk, or ALTER TABLE what it lets you alter.",
            )
        for what in _managed(context, relation, _CITUS):
            yield Finding(
                NAME,
                f"{relation} is {what}",
                "Its rows may be on other servers, and the swap would not reach those. Use "
                "alter_distributed_table, or undistribute_table before the job and "
                "create_distributed_table, create_reference_table or "
                "citus_add_local_table_to_metadata after it.",
            )


def _managed(
    context: CheckContext, relation: Relation, catalogs: tuple[tuple[str, LiteralString], ...]
) -> Iterator[str]:
    """What ``relation`` is to an extension, if that has catalogs here: the first that knows it."""
    for catalog, query in catalogs:
        if context.row("SELECT pg_catalog.to_regclass(%(name)s)", name=catalog) == (None,):
            continue
        found = context.rows(query, oid=relation.oid, schema=relation.schema, name=relation.name)
        if found:
            yield found[0][0]
            return
