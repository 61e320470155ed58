"""Functions and procedures: with a BEGIN ATOMIC body over the table, or its row type in the signature.

One with the row type in its signature is another function afterwards: it is made anew with the
views. Any other stays what it is, with its OID, owner and grants: only its body is bound anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from restructure.postgres.connect import Connection
from restructure.postgres.script import Step
from restructure.shape.carry import bindings
from restructure.shape.carry.closure import readers
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.recipe import checking_bodies
from restructure.shape.deparse import printed
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class Routine:
    """``definition`` begins with ``start`` (CREATE OR REPLACE and what it is) and ``quoted``, its name.

    ``atomic``: the body is a parse tree. ``extensions`` are those that it must go with
    (DEPENDS ON EXTENSION), which replacing it forgets.
    """

    kind: str
    name: str
    identity: str
    definition: str
    start: str
    quoted: str
    atomic: bool
    extensions: list[str]

    @property
    def label(self) -> str:
        return f"{self.kind} {self.identity}"


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them, also those that read it through views."""
    return dependents(connection, table, "function")


def part(carrying: Carrying) -> Part:
    """Bind the bodies anew; the statement is the definition itself."""
    steps = []
    for routine in _read(carrying):
        statements: list[sql.Composable] = [
            checking_bodies(routine.atomic),
            printed(routine.definition),
        ]
        statements += [
            sql.SQL("ALTER ROUTINE {} DEPENDS ON EXTENSION {}").format(
                printed(routine.identity), sql.Identifier(extension)
            )
            for extension in routine.extensions
        ]
        steps += [
            Step.of(
                carrying.connection,
                statement,
                lock="none",
                why=f"{routine.label}: its body is bound to the new table",
            )
            for statement in statements
        ]
    return Part(up=tuple(steps))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Make one like each beside the shadow, for a moment: of its name, for its body may say that."""
    for routine in _read(carrying):
        rest = routine.definition[len(routine.start) + len(routine.quoted) :]
        name = sql.Identifier(carrying.names.shadow_schema, routine.name)
        copy = sql.SQL("{}{}{}").format(printed(routine.start), name, printed(rest))
        statements = [checking_bodies(routine.atomic), copy]
        yield from bindings.tried(carrying, routine.label, routine.name, statements)


def _read(carrying: Carrying) -> list[Routine]:
    connection = carrying.connection
    found = readers(connection, carrying.tree["tree"])
    oids = [thing.oid for thing in bindings.rebound(carrying, found, "function")]
    with (
        connection.transaction(force_rollback=True),  # printing locks what the bodies mention
        carrying.relative(),
        connection.cursor(row_factory=class_row(Routine)) as cursor,
    ):
        return cursor.execute(_ROUTINES, [oids]).fetchall()


_ROUTINES = """
SELECT what AS kind, p.proname AS name, n.identity, pg_catalog.pg_get_functiondef(p.oid) AS definition,
       'CREATE OR REPLACE ' || upper(what) || ' ' AS start,
       pg_catalog.format('%%I.%%I', s.nspname, p.proname) AS quoted,
       p.prosqlbody IS NOT NULL AS atomic,
       ARRAY(SELECT e.extname::text FROM pg_catalog.pg_depend d
             JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
             WHERE d.classid = p.tableoid AND d.objid = p.oid AND d.deptype = 'x'
               AND d.refclassid = 'pg_catalog.pg_extension'::regclass ORDER BY 1) AS extensions
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
CROSS JOIN LATERAL pg_catalog.pg_identify_object(p.tableoid, p.oid, 0) AS n
CROSS JOIN LATERAL (SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END) AS k (what)
WHERE p.oid = ANY(%s::oid[]) ORDER BY p.oid
"""

KIND = Kind(
    "function",
    find,
    how="one with the row type in its signature is made anew beside the new table; the body of any "
    "other is bound anew in the swap",
    hint="Drop it, or make it fit the new table; it can be created again afterwards.",
    part=part,
    rehearse=rehearse,
)
