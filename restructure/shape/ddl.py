"""Run the plan's own DDL on the empty shadow, and see that it did nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from restructure.errors import PlanError
from restructure.model.relation import Relation
from restructure.plan.load import LoadedPlan
from restructure.plan.source import Path
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script, Step
from restructure.shape.deparse import printed, search_path_first
from restructure.shape.expressions import plan_error
from restructure.shape.table import Table, read_relation

_USING = re.compile(r"\bTYPE\b.*\bUSING\b", re.IGNORECASE | re.DOTALL)


def apply_alter(
    script: Script, clone: Relation, source: Table, loaded: LoadedPlan
) -> dict[str, str]:
    """Apply the clauses of ``alter`` to the clone, one by one.

    Returns the old columns that are left, each with its name in the shadow. Raises PlanError at
    the clause's line for what PostgreSQL refuses and for what would make another table of it.
    """
    connection = script.connection
    # LIKE numbers the columns that are left from 1, in order
    numbers = {number: column.name for number, column in enumerate(source.columns, 1)}
    for index, clause in enumerate(loaded.plan.alter):
        path: Path = ("alter", index)
        before = _nature(connection, clone.oid)
        columns = _columns(connection, clone.oid)
        held = _elsewhere(connection, clone.schema)
        head = sql.SQL("ALTER TABLE {} ").format(clone.identifier)
        try:
            with search_path_first(connection, clone.schema):
                script.run(head + printed(clause), lock="none", why=f"alter, clause {index + 1}")
        except psycopg.Error as error:
            start = len(head.as_string(connection))
            raise plan_error(error, loaded, path, clause, start) from None
        _refuse_locks(connection, clone, held, loaded, path)
        after = _nature(connection, clone.oid)
        changed = [what for what in before if before[what] != after.get(what)]
        if changed:
            raise PlanError(
                f"alter.{index}: this changes the table's {changed[0]}, which must stay as it is",
                place=loaded.place(*path),
                hint="Under alter goes what changes columns, constraints, indexes and options.",
            )
        if _USING.search(clause):
            _refuse_using(columns, _columns(connection, clone.oid), loaded, path)
    left = _columns(connection, clone.oid)
    return {old: left[number][0] for number, old in numbers.items() if number in left}


def run_create(script: Script, source: Table, schema: str, loaded: LoadedPlan) -> Table:
    """Run ``create`` with ``schema`` first on search_path; return the table that it made.

    Raises PlanError where PostgreSQL refuses it, or where it makes no table of the source's name,
    or anything besides it.
    """
    connection = script.connection
    text = loaded.plan.create or ""
    path: Path = ("create",)
    held = _elsewhere(connection, schema, every=True)
    script.steps.append(Step(text, "none", "the new table, as the plan writes it"))
    # EXECUTE takes several statements, and refuses COMMIT (exec_stmt_dynexecute in pl_exec.c)
    block = sql.Literal(f"BEGIN EXECUTE {sql.Literal(text).as_string(connection)}; END")
    try:
        with search_path_first(connection, schema):
            connection.execute(sql.SQL("DO ") + block, binary=True)
    except psycopg.Error as error:
        raise plan_error(error, loaded, path, text, 0) from None
    made = connection.execute(_MADE, [schema, source.relation.name]).fetchone()
    if made is None:
        raise PlanError(
            f"create: this makes no table named {source.relation.name}",
            place=loaded.place(*path),
            hint="The new table must have the old one's name, without a schema: it is made in"
            " a schema of its own, and moved when it takes the old one's place.",
        )
    table = read_relation(connection, made[0])
    _refuse_locks(connection, table.relation, held, loaded, path)
    refuse_nature(connection, table, loaded)
    return table


def refuse_nature(connection: Connection, table: Table, loaded: LoadedPlan) -> None:
    """Refuse a shadow that could not take the source's place. Raises PlanError."""
    key = "create" if loaded.plan.create is not None else "alter"
    nature = _nature(connection, table.relation.oid)
    wanted: dict[str, Any] = {
        "kind": nature["kind"] if nature["kind"] in ("r", "p") else "r",
        "persistence": "p",
        "storage": nature["storage"] if nature["storage"] in (None, "heap") else "heap",
        **dict.fromkeys(("row type", "parents", "triggers", "rules", "policies")),
        "row level security": "falsefalse",
    }
    words = {
        "kind": "must be a plain or partitioned table",
        "persistence": "must not be UNLOGGED or TEMPORARY: a crash would empty it",
        "storage": "must be of access method heap",
        "row type": "must not be a typed table (OF)",
        "parents": "must not inherit, nor be a partition",
        "triggers": "must not have triggers yet: they would fire while it is filled",
        "rules": "must not have rules yet: they would act while it is filled",
        "policies": "must not have policies yet",
        "row level security": "must not have row level security yet",
    }
    for what, value in wanted.items():
        if nature[what] != value:
            raise PlanError(f"{key}: the new table {words[what]}", place=loaded.place(key))
    row = connection.execute(_ODD_MEMBER, [[member.oid for member in table.tree]]).fetchone()
    if row is not None:
        raise PlanError(
            f"{key}: partition {row[0]} must be a logged heap table too", place=loaded.place(key)
        )


def _nature(connection: Connection, oid: int) -> dict[str, Any]:
    row = connection.execute(_NATURE, {"oid": oid}).fetchone()
    assert row is not None
    nature: dict[str, Any] = row[0]
    return nature


def _columns(connection: Connection, oid: int) -> dict[int, tuple[str, str, str]]:
    """Name, type and row version in pg_attribute of each column, by attribute number."""
    rows = connection.execute(_ATTRIBUTES, [oid]).fetchall()
    return {number: (name, kind, version) for number, name, kind, version in rows}


def _refuse_using(
    before: dict[int, tuple[str, str, str]],
    after: dict[int, tuple[str, str, str]],
    loaded: LoadedPlan,
    path: Path,
) -> None:
    """TYPE … USING is applied to an empty table: its expression would be lost without a word."""
    touched = [n for n in after if n in before and before[n][2] != after[n][2]]
    retyped = [n for n in touched if before[n][1] != after[n][1]] or touched
    lost = [after[n][0] for n in retyped if after[n][0] not in loaded.plan.columns]
    if lost:
        raise PlanError(
            f"{path[0]}.{path[1]}: the expression behind USING belongs under columns",
            place=loaded.place(*path),
            hint=f"Write there {lost[0]}: and the expression, and leave USING out where the types"
            " convert without it.",
        )


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Relations outside the schemas of ours, by name, and this session's strong locks on them."""

    names: dict[int, str]
    locks: set[tuple[int, str]]


def _elsewhere(connection: Connection, schema: str, *, every: bool = False) -> _Elsewhere:
    """With ``every``, name all relations, so that one that is dropped can be named still."""
    which = {"mine": [schema, schema + "_parents"], "every": every}
    rows = connection.execute(_OTHERS, which).fetchall()
    names: dict[int, str] = {oid: name for oid, name in rows}
    return _Elsewhere(names, set(connection.execute(_LOCKS).fetchall()))


def _refuse_locks(
    connection: Connection,
    table: Relation,
    before: _Elsewhere,
    loaded: LoadedPlan,
    path: Path,
) -> None:
    """Whatever the DDL did to another relation, it locked it for that.

    A foreign key may lock the table it references (SHARE ROW EXCLUSIVE); nothing else may.
    """
    after = _elsewhere(connection, table.schema)
    names = before.names | after.names  # a relation that was dropped is only among the former
    new = {(oid, mode) for oid, mode in after.locks - before.locks if oid in names}
    if not new:
        return
    referenced = {
        oid
        for (oid,) in connection.execute(
            "SELECT confrelid::int8 FROM pg_catalog.pg_constraint"
            " WHERE contype = 'f' AND conrelid IN (SELECT c.oid FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s)",
            [table.schema],
        ).fetchall()
    }
    for oid, mode in sorted(new):
        if mode == "ShareRowExclusiveLock" and oid in referenced:
            continue
        raise PlanError(
            f"{path[0]}: this also acts on {names[oid]}, not on the new table only",
            place=loaded.place(*path),
            hint="Do that yourself, before or after the job.",
        )


_MADE = """
SELECT c.oid::int8
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""

_NATURE = """
SELECT json_build_object(
  'name', c.relname, 'schema', c.relnamespace, 'owner', c.relowner, 'kind', c.relkind,
  'persistence', c.relpersistence,
  'storage', (SELECT amname FROM pg_catalog.pg_am WHERE oid = c.relam),
  'row type', nullif(c.reloftype, 0),
  'row level security', c.relrowsecurity::text || c.relforcerowsecurity,
  'parents', (SELECT array_agg(inhparent) FROM pg_catalog.pg_inherits WHERE inhrelid = c.oid),
  'partitions', (WITH RECURSIVE tree AS (
        SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits WHERE inhparent = c.oid
        UNION ALL
        SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i
        JOIN tree t ON i.inhparent = t.inhrelid)
    SELECT array_agg(concat_ws('/', inhrelid, inhparent) ORDER BY inhrelid) FROM tree),
  'triggers', (SELECT array_agg(tgname) FROM pg_catalog.pg_trigger
               WHERE tgrelid = c.oid AND NOT tgisinternal),
  'rules', (SELECT array_agg(rulename) FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid),
  'policies', (SELECT array_agg(polname) FROM pg_catalog.pg_policy WHERE polrelid = c.oid))
FROM pg_catalog.pg_class c WHERE c.oid = %(oid)s
"""

_ODD_MEMBER = """
SELECT c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE c.oid = ANY(%s::oid[]) AND (c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p'
  OR c.relkind = 'r' AND m.amname <> 'heap' OR EXISTS (
      SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal))
ORDER BY c.relname LIMIT 1
"""

_ATTRIBUTES = """
SELECT attnum, attname, concat_ws(' ', atttypid, atttypmod, attcollation), ctid::text
FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""

_LOCKS = """
SELECT l.relation::int8, l.mode
FROM pg_catalog.pg_locks l
WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
"""

_OTHERS = """
SELECT c.oid::int8, n.nspname || '.' || c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
  AND n.nspname <> ALL(%(mine)s)
  AND (%(every)s OR c.oid IN (SELECT l.relation FROM pg_catalog.pg_locks l
                              WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'))
"""
