"""Defaults of other tables and views that use the table or its identity's sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.postgres.script import Step
from restructure.shape.carry import bindings
from restructure.shape.carry.closure import readers
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.deparse import printed
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class Default:
    """The default of ``column`` of another table or view. ``table``: whether it is a table."""

    home: int
    schema: str
    name: str
    table: bool
    column: str
    type_sql: str
    expression: str

    @property
    def relation(self) -> Relation:
        return Relation(self.home, self.schema, self.name)


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "default")


def part(carrying: Carrying) -> Part:
    """Set each again where it is: its text means the new table then."""
    found = _read(carrying)
    steps = [
        Step.of(
            carrying.connection,
            sql.SQL("ALTER TABLE ONLY {} ALTER COLUMN {} SET DEFAULT {}").format(
                default.relation.identifier,
                sql.Identifier(default.column),
                printed(default.expression),
            ),
            lock=f"ACCESS EXCLUSIVE on {default.relation}",
            why="its default is bound to the new table",
        )
        for default in found
    ]
    wanted = [
        Wanted(default.relation, "ACCESS EXCLUSIVE", lockable=default.table) for default in found
    ]
    return Part(up=tuple(steps), wanted=tuple(wanted))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Look whether the expression has a meaning and the column's type, in a view for a moment."""
    name = sql.Identifier(carrying.names.shadow_schema, _TRIAL)
    for default in _read(carrying):
        statement = sql.SQL("CREATE VIEW {} AS SELECT CAST({} AS {}) AS value").format(
            name, printed(default.expression), printed(default.type_sql)
        )
        label = f"default of {default.relation}.{default.column}"
        yield from bindings.tried(carrying, label, _TRIAL, [statement])


def _read(carrying: Carrying) -> list[Default]:
    connection = carrying.connection
    found = readers(connection, carrying.tree["tree"])
    oids = [thing.oid for thing in bindings.rebound(carrying, found, "default")]
    with carrying.relative(), connection.cursor(row_factory=class_row(Default)) as cursor:
        return cursor.execute(_DEFAULTS, [oids]).fetchall()


_TRIAL = "restructure_rehearsal"

_DEFAULTS = """
SELECT c.oid::int8 AS home, n.nspname AS schema, c.relname AS name,
       c.relkind IN ('r', 'p') AS table, a.attname AS column,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_sql,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS expression
FROM pg_catalog.pg_attrdef d
JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.oid = ANY(%s::oid[]) ORDER BY c.oid, a.attnum
"""

KIND = Kind(
    "default",
    find,
    how="set again in the swap, where it then means the new table",
    hint="Drop the default for the time of the job.",
    part=part,
    rehearse=rehearse,
)
