"""The shadow table: made in one transaction, indexes set aside for after the copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import errors, sql

from restructure.errors import NotNow, PlanError, UsageError
from restructure.model.names import Names
from restructure.plan.load import LoadedPlan
from restructure.postgres.script import Script
from restructure.shape.aside import set_aside_indexes, set_aside_late
from restructure.shape.carry.bound import hold_to_bound
from restructure.shape.clone import clone_indexes, clone_late_constraints, clone_table
from restructure.shape.ddl import apply_alter, refuse_nature, run_create
from restructure.shape.foreign import read_late_constraints, standing_in
from restructure.shape.made import Moment, SetAside, Shadow
from restructure.shape.mapping import Mapping, derive_mapping
from restructure.shape.reverse import derive_way_back
from restructure.shape.table import Table, read_relation

__all__ = ["Moment", "SetAside", "Shadow", "build_shadow"]


def build_shadow(script: Script, source: Table, loaded: LoadedPlan, names: Names) -> Shadow:
    """Make the empty shadow in its schema, in the caller's transaction.

    Takes ACCESS SHARE on the source, and no lock on any other table unless the plan's own DDL
    names it as the target of a foreign key. Nothing is left if the transaction rolls back.
    Raises PlanError at the line of what cannot be, UsageError where the schema is there already,
    NotNow where a lock was not had at once.
    """
    try:
        return _build(script, source, loaded, names)
    except errors.LockNotAvailable as error:
        raise NotNow(
            f"a lock for building the shadow was not had within {_LOCK_TIMEOUT}:"
            f" {error.diag.message_primary}",
            hint="Somebody changes the table, or one that a foreign key of the plan references."
            " Run the same command again.",
        ) from error


_LOCK_TIMEOUT = "500ms"
"""A request that waits makes everybody queue behind it (PostgreSQL docs, explicit-locking)."""


def _build(script: Script, source: Table, loaded: LoadedPlan, names: Names) -> Shadow:
    with script.connection.transaction(), _lock_timeout(script):
        _create_schema(script, names)
        if loaded.plan.create is None:
            kept, table, late = _by_alter(script, source, loaded, names)
        else:
            kept = None
            table = run_create(script, source, names.shadow_schema, loaded)
            late = set_aside_late(script, table, source, {})
        _refuse_extras(script, table, loaded)
        _refuse_conflicts(script, source, table, loaded)
        table = read_relation(script.connection, table.relation.oid)
        mapping = derive_mapping(script.connection, source, table, loaded, kept)
        back = derive_way_back(script.connection, source, table, loaded, mapping)
        identities = _identities_by_default(script, source, table, mapping)
        indexes = set_aside_indexes(script, table, mapping)
        hold_to_bound(script, source.relation, table.relation)
    return Shadow(
        table.relation,
        table.leaves,
        mapping,
        (*indexes, *identities, *late),
        table.branches,
        back,
    )


@contextmanager
def _lock_timeout(script: Script) -> Iterator[None]:
    form = "SELECT set_config('lock_timeout', %s, true)"
    row = script.connection.execute("SELECT current_setting('lock_timeout')").fetchone()
    assert row is not None
    script.connection.execute(form, [_LOCK_TIMEOUT])
    yield
    script.connection.execute(form, [row[0]])


def _create_schema(script: Script, names: Names) -> None:
    """Create the shadow schema. Raises UsageError where there is one."""
    try:
        script.run(
            sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(names.shadow_schema)),
            lock="none",
            why="a schema of its own, so that everything has its final name from the start",
        )
    except errors.DuplicateSchema:
        raise UsageError(
            f"schema {names.shadow_schema} exists already",
            hint="Another job of this name has left it, or has it: abort that job, or take"
            " another name.",
        ) from None


def _by_alter(
    script: Script, source: Table, loaded: LoadedPlan, names: Names
) -> tuple[dict[str, str], Table, list[SetAside]]:
    connection = script.connection
    clones = clone_table(script, source, names.shadow_schema)
    clone = clones[source.relation.oid]
    clone_indexes(script, source, clones)
    late = read_late_constraints(connection, source.tree)
    keys = [constraint for constraint in late if constraint.kind == "f"]
    with standing_in(script, keys, clones, names) as parents:
        clone_late_constraints(script, late, clones, parents)
        kept = apply_alter(script, clone, source, loaded)
        table = read_relation(connection, clone.oid)
        refuse_nature(connection, table, loaded)
        stands_for = {stand_in.oid: real for real, stand_in in parents.items()}
        aside = set_aside_late(script, table, source, stands_for)
    return kept, table, aside


def _identities_by_default(
    script: Script, source: Table, table: Table, mapping: Mapping
) -> list[SetAside]:
    """GENERATED ALWAYS would refuse an UPDATE to the source's value: only from the swap on."""
    filled = {column.name for column in mapping.filled}
    aside: list[SetAside] = []
    for column in table.columns:
        if column.identity != "a" or column.name not in filled:
            continue
        form = "ALTER TABLE {} ALTER COLUMN {} SET GENERATED {}"
        name = sql.Identifier(column.name)
        script.run(
            sql.SQL(form).format(table.relation.identifier, name, sql.SQL("BY DEFAULT")),
            lock=f"ACCESS EXCLUSIVE on {table.relation}",
            why="the shadow takes the source's values",
        )
        always = sql.SQL(form).format(source.relation.identifier, name, sql.SQL("ALWAYS"))
        aside.append(
            SetAside(
                "swap",
                column.name,
                always.as_string(script.connection),
                f"ACCESS EXCLUSIVE on {source.relation}",
            )
        )
    return aside


def _refuse_extras(script: Script, table: Table, loaded: LoadedPlan) -> None:
    """Only the table, its partitions, indexes and own sequences move in the swap."""
    tree = [member.oid for member in table.tree]
    row = script.connection.execute(
        _EXTRAS, {"schema": table.relation.schema, "tree": tree}
    ).fetchone()
    if row is not None:
        key = "create" if loaded.plan.create is not None else "alter"
        raise PlanError(
            f"{key}: this makes {row[0]} besides the new table",
            place=loaded.place(key),
            hint="Make it yourself before the job, in the schema where it is to stay.",
        )


def _refuse_conflicts(script: Script, source: Table, table: Table, loaded: LoadedPlan) -> None:
    """In the swap everything moves to the source's schema: its names must be free there."""
    row = script.connection.execute(
        _CONFLICTS,
        {
            "shadow_schema": table.relation.schema,
            "schema": source.relation.schema,
            "tree": [member.oid for member in source.tree],
        },
    ).fetchone()
    if row is not None:
        key = "create" if loaded.plan.create is not None else "alter"
        raise PlanError(
            f"{key}: name conflict: schema {source.relation.schema} has another {row[0]!r} already",
            place=loaded.place(key),
            hint="Give it another name: the new table and what belongs to it move there.",
        )


_EXTRAS = """
SELECT what FROM (
    SELECT CASE c.relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'view '
                          WHEN 'c' THEN 'type ' ELSE 'table ' END || c.relname AS what
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.oid <> ALL(%(tree)s::oid[])
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                      WHERE i.indexrelid = c.oid AND i.indrelid = ANY(%(tree)s::oid[]))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.refobjid = ANY(%(tree)s::oid[]))
    UNION ALL
    SELECT 'type ' || t.typname
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE n.nspname = %(schema)s AND t.typrelid = 0 AND t.typelem = 0
    UNION ALL
    SELECT 'function ' || p.proname
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s
    UNION ALL
    SELECT 'statistics object ' || s.stxname
    FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
    WHERE n.nspname = %(schema)s AND s.stxrelid <> ALL(%(tree)s::oid[])
) AS extras LIMIT 1
"""

_CONFLICTS = """
WITH moving AS (
    SELECT unnest(%(tree)s::oid[]) AS oid
    UNION
    SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = ANY(%(tree)s::oid[])
    UNION
    SELECT d.objid FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
      AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refobjid = ANY(%(tree)s::oid[])
), wanted AS (
    SELECT c.relname, c.relkind FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %(shadow_schema)s
)
SELECT w.relname FROM wanted w
JOIN pg_catalog.pg_class o ON o.relname = w.relname
JOIN pg_catalog.pg_namespace n ON n.oid = o.relnamespace AND n.nspname = %(schema)s
WHERE o.oid NOT IN (SELECT oid FROM moving)
UNION ALL
SELECT w.relname FROM wanted w
JOIN pg_catalog.pg_type t ON t.typname = w.relname AND t.typrelid = 0 AND t.typelem = 0
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace AND n.nspname = %(schema)s
WHERE w.relkind IN ('r', 'p')
ORDER BY 1 LIMIT 1
"""
