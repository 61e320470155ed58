"""What is bound to the old table by OID: has it changed meanwhile, and is anything still so?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import LiteralString

from psycopg import sql

from restructure.postgres.said import refusal
from restructure.postgres.script import Script, Step
from restructure.shape.carry.closure import Reader
from restructure.shape.carry.dependents import REPLACED, Dependent, every_dependent
from restructure.shape.carry.kind import Carrying


def rebound(carrying: Carrying, found: Iterable[Reader], kind: str) -> list[Dependent]:
    """What of ``kind`` is bound to the table but stays what it is: only its text is bound anew."""
    made_anew = {reader.oid for reader in found}
    return [
        thing
        for thing in every_dependent(carrying.connection, carrying.source)
        if thing.kind == kind and thing.oid not in made_anew
    ]


def state(carrying: Carrying, found: Sequence[Reader]) -> str:
    """A fingerprint of the definitions that are carried. Empty where there are none."""
    query = _state_query(carrying, found)
    if query is None:
        return ""
    row = carrying.connection.execute(query).fetchone()
    return str(row[0]) if row else ""


def remember(script: Script, carrying: Carrying, known: str) -> None:
    """Note, where every session finds it, from what state the things beside the shadow were made."""
    script.run(
        sql.SQL("COMMENT ON SCHEMA {} IS {}").format(
            sql.Identifier(carrying.names.shadow_schema), sql.Literal(_NOTE + known)
        ),
        lock="none",
        why="tells whether what reads the table has changed since",
    )


def remembered(carrying: Carrying) -> str:
    """What :func:`remember` noted; empty where nothing was."""
    row = carrying.connection.execute(_REMEMBERED, [carrying.names.shadow_schema]).fetchone()
    note = row[0] if row else None
    return note.removeprefix(_NOTE) if note else ""


def unchanged_step(carrying: Carrying, found: Sequence[Reader]) -> Step | None:
    """A statement that fails where a definition is not what it was when it was read.

    The fingerprint under the lock tells what hangs on the table itself, but not what hangs on
    that, and not whether a function's body was replaced.
    """
    query = _state_query(carrying, found)
    if query is None:
        return None
    statement = sql.SQL(_UNCHANGED).format(query=query, known=sql.Literal(remembered(carrying)))
    return Step.of(
        carrying.connection, statement, lock="none", why="what is carried must be as it was read"
    )


def still_bound(carrying: Carrying, made: Iterable[int]) -> dict[int, str]:
    """What of ``made`` (OIDs of relations and routines) uses something that will retire, and what."""
    parameters = {**carrying.tree, "made": list(made)}
    return dict(carrying.connection.execute(_STILL_BOUND, parameters).fetchall())


def astray(label: str, used: str) -> str:
    """The reason why something that :func:`still_bound` found cannot be carried."""
    return f"{label}: it would go on using the old {used}, for there is no such name beside the new table"


def refused(carrying: Carrying, label: str, work: Callable[[], None]) -> str | None:
    """Do ``work`` where names mean the shadow; the reason if PostgreSQL refuses it."""

    def staged() -> None:
        with carrying.staged():
            work()

    reason = refusal(carrying.connection, staged)
    return f"{label}: {reason}" if reason else None


def tried(
    carrying: Carrying, label: str, name: str, statements: Sequence[sql.SQL | sql.Composed]
) -> Iterator[str]:
    """Say why ``statements``, which make something called ``name`` beside the shadow, cannot succeed.

    Nothing of it remains.
    """
    connection = carrying.connection
    with connection.transaction(force_rollback=True):

        def run() -> None:
            for statement in statements:
                connection.execute(statement)

        reason = refused(carrying, label, run)
        if reason:
            yield reason
            return
        rows = connection.execute(
            _REHEARSED, {"schema": carrying.names.shadow_schema, "name": name}
        ).fetchall()
        for used in still_bound(carrying, [oid for (oid,) in rows]).values():
            yield astray(label, used)


def _state_query(carrying: Carrying, found: Sequence[Reader]) -> sql.Composed | None:
    bound = [
        thing.oid for kind in ("function", "default") for thing in rebound(carrying, found, kind)
    ]
    if not found and not bound:
        return None
    routines = [reader.oid for reader in found if reader.routine]
    return sql.SQL(_STATE).format(
        relations=sql.Literal([reader.oid for reader in found if not reader.routine]),
        routines=sql.Literal(routines),
        bound=sql.Literal([*routines, *bound]),
    )


_NOTE = "made from "

_REMEMBERED = "SELECT pg_catalog.obj_description(to_regnamespace(quote_ident(%s)), 'pg_namespace')"

_REHEARSED = """
SELECT oid::int8 FROM pg_catalog.pg_class
WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND relname = %(name)s
UNION ALL
SELECT oid::int8 FROM pg_catalog.pg_proc
WHERE pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND proname = %(name)s
"""

_STATE: LiteralString = """
SELECT pg_catalog.md5(pg_catalog.string_agg(line, ',' ORDER BY line)) FROM (
    SELECT concat_ws(' ', c.oid, c.relname, c.relnamespace, c.relowner, c.relacl, c.reloptions,
                     c.reltablespace, c.relispopulated)
    FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
    WHERE c.oid = ANY({relations}::oid[]) OR i.indrelid = ANY({relations}::oid[])
    UNION ALL SELECT concat_ws(' ', attrelid, attnum, xmin) FROM pg_catalog.pg_attribute
    WHERE attrelid = ANY({relations}::oid[])
    UNION ALL SELECT concat_ws(' ', oid, xmin) FROM pg_catalog.pg_rewrite
    WHERE ev_class = ANY({relations}::oid[])
    UNION ALL SELECT concat_ws(' ', oid, xmin) FROM pg_catalog.pg_trigger
    WHERE tgrelid = ANY({relations}::oid[])
    UNION ALL SELECT concat_ws(' ', oid, xmin) FROM pg_catalog.pg_attrdef
    WHERE adrelid = ANY({relations}::oid[]) OR oid = ANY({bound}::oid[])
    UNION ALL SELECT concat_ws(' ', oid, xmin) FROM pg_catalog.pg_proc WHERE oid = ANY({bound}::oid[])
    UNION ALL SELECT concat_ws(' ', classoid, objoid, objsubid, xmin)
    FROM pg_catalog.pg_description
    WHERE classoid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass)
      AND objoid = ANY({relations}::oid[] || {routines}::oid[])
    UNION ALL SELECT concat_ws(' ', d.classid, d.objid) FROM pg_catalog.pg_depend d
    WHERE d.refclassid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass)
      AND d.refobjid = ANY({relations}::oid[] || {routines}::oid[])
    UNION ALL SELECT concat_ws(' ', d.classid, d.objid)
    FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_depend d ON d.refobjid IN (t.oid, t.typarray)
     AND d.refclassid = 'pg_catalog.pg_type'::regclass
    WHERE t.typrelid = ANY({relations}::oid[])
) AS found (line)
"""

_UNCHANGED: LiteralString = """DO $unchanged$ BEGIN
IF ({query}) IS DISTINCT FROM {known} THEN
    RAISE EXCEPTION 'what reads the table was changed' USING ERRCODE = 'dependent_objects_still_exist';
END IF; END $unchanged$"""

_STILL_BOUND: LiteralString = (
    REPLACED
    + """,
use AS (
    SELECT coalesce(w.ev_class, a.adrelid, g.tgrelid, i.indrelid, d.objid) AS user_oid,
           r.classid = 'pg_catalog.pg_type'::regclass AS is_type,
           (pg_catalog.pg_identify_object(r.classid, r.objid, 0)).identity AS used
    FROM replaced r
    JOIN pg_catalog.pg_depend d ON d.refclassid = r.classid AND d.refobjid = r.objid
    LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = w.tableoid AND d.objid = w.oid
    LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = a.tableoid AND d.objid = a.oid
    LEFT JOIN pg_catalog.pg_trigger g ON d.classid = g.tableoid AND d.objid = g.oid
    LEFT JOIN pg_catalog.pg_index i
      ON d.classid = 'pg_catalog.pg_class'::regclass AND i.indexrelid = d.objid)
SELECT DISTINCT ON (user_oid) user_oid::int8, used FROM use
WHERE user_oid = ANY(%(made)s::oid[]) ORDER BY user_oid, is_type, used
"""
)
