"""Triggers of the application, made again only in the swap: they never fire for our own writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from restructure.postgres.connect import Connection
from restructure.shape.carry import things
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.things import Place, Thing
from restructure.shape.deparse import printed
from restructure.shape.table import Table

_READ = """
SELECT g.oid::int8, g.tgrelid::int8 AS table, g.tgname AS name, g.tgparentid <> 0 AS inherited,
       g.tgenabled::text AS fires, coalesce(p.tgenabled::text, 'O') AS fires_for_parent,
       pg_catalog.pg_get_triggerdef(g.oid, true) AS definition,
       pg_catalog.obj_description(g.oid, 'pg_trigger') AS comment,
       'trigger ' || (pg_catalog.pg_identify_object(g.tableoid, g.oid, 0)).identity AS label,
       ARRAY(SELECT e.extname::text FROM pg_catalog.pg_depend d
             JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
             WHERE d.classid = g.tableoid AND d.objid = g.oid AND d.deptype = 'x'
               AND d.refclassid = 'pg_catalog.pg_extension'::regclass ORDER BY 1) AS extensions
FROM unnest(%(tree)s::oid[]) WITH ORDINALITY AS member (oid, place)
JOIN pg_catalog.pg_trigger g ON g.tgrelid = member.oid AND NOT g.tgisinternal
LEFT JOIN pg_catalog.pg_trigger p ON p.oid = g.tgparentid
ORDER BY member.place, g.tgname
"""

_STATES: dict[str, LiteralString] = {
    "O": "ENABLE",
    "D": "DISABLE",
    "R": "ENABLE REPLICA",
    "A": "ENABLE ALWAYS",
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """``fires`` is pg_trigger.tgenabled. An ``inherited`` one was cloned from the partition's parent."""

    oid: int
    table: int
    name: str
    inherited: bool
    fires: str
    fires_for_parent: str
    definition: str
    comment: str | None
    label: str
    extensions: list[str]


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them, also constraint triggers elsewhere that name the table."""
    return dependents(connection, table, "trigger")


def part(carrying: Carrying) -> Part:
    """Make every trigger on the new table. Raises OperatorNeeded where one cannot be."""
    things.refuse(_of_other_tables(carrying))
    return things.compose(carrying, _things(carrying))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Say which trigger cannot be made, and why.

    One inherited from above the source comes only with ATTACH, so there is nothing to try.
    """
    yield from _of_other_tables(carrying)
    root = carrying.source.relation.oid
    above = {t.name for t in _read(carrying) if t.inherited and t.table == root}
    tried = _things(carrying, lambda trigger: not (trigger.inherited and trigger.name in above))
    yield from things.rehearse(carrying, tried)


def _of_other_tables(carrying: Carrying) -> Iterator[str]:
    """FROM in a constraint trigger of another table is bound to the old one for good."""
    found = find(carrying.connection, carrying.source)
    known = (trigger.oid for trigger in _read(carrying))
    return things.unknown(found, known, "it is another table's and names this one")


def _read(carrying: Carrying) -> list[Trigger]:
    with carrying.relative(), carrying.connection.cursor(row_factory=class_row(Trigger)) as cursor:
        return cursor.execute(_READ, carrying.tree).fetchall()


def _things(carrying: Carrying, wanted: Callable[[Trigger], bool] = lambda _: True) -> list[Thing]:
    place = Place(carrying)
    return [
        place.thing(
            trigger.label,
            "pg_trigger",
            trigger.oid,
            trigger.table,
            _statements(place, trigger),
            "SHARE ROW EXCLUSIVE",
        )
        for trigger in _read(carrying)
        if wanted(trigger) and (not trigger.inherited or place.taken(trigger.table))
    ]


def _statements(place: Place, trigger: Trigger) -> Iterator[sql.Composable]:
    """A partition's inherited one comes with its parent's, and in its state."""
    table, name = place.table(trigger.table), sql.Identifier(trigger.name)
    if not trigger.inherited:
        yield printed(trigger.definition)
    if trigger.fires != trigger.fires_for_parent:
        state = sql.SQL(_STATES[trigger.fires])
        yield sql.SQL("ALTER TABLE {} {} TRIGGER {}").format(table, state, name)
    if trigger.comment is not None:
        yield sql.SQL("COMMENT ON TRIGGER {} ON {} IS {}").format(
            name, table, sql.Literal(trigger.comment)
        )
    for extension in trigger.extensions:
        yield sql.SQL("ALTER TRIGGER {} ON {} DEPENDS ON EXTENSION {}").format(
            name, table, sql.Identifier(extension)
        )


KIND = Kind(
    "trigger",
    find,
    how="created on the new table in the swap, so that it fires for no write of ours",
    hint="Drop it and create it again afterwards.",
    part=part,
    rehearse=rehearse,
)
