"""Views: their query is bound to the table by OID, so each is made anew and takes its place.

Here is what the swap does for all that :mod:`staging` has made, materialized views and functions
too, for they depend on each other. The old ones retire with their table.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.postgres.script import Step
from restructure.shape.carry import bindings, staging
from restructure.shape.carry.closure import Reader, readers
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import NOTHING, Carrying, Kind, Part
from restructure.shape.carry.recipe import arguments, signature
from restructure.shape.deparse import printed
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them, also those that read it through others."""
    return dependents(connection, table, "view")


def part(carrying: Carrying) -> Part:
    """Lock the old ones, outermost first; retire them; move the new ones to their places."""
    found = readers(carrying.connection, carrying.tree["tree"])
    unchanged = bindings.unchanged_step(carrying, found)
    if unchanged is None:
        return NOTHING
    places = staging.beside(carrying, found)
    relations = [reader for reader in reversed(found) if not reader.routine]
    return Part(
        first=tuple(_lock(carrying.connection, reader) for reader in relations),
        down=(
            unchanged,
            *(step for reader in reversed(found) for step in _retire(carrying, reader, places)),
        ),
        up=tuple(step for reader in found for step in _settle(carrying, reader, places)),
        wanted=tuple(
            Wanted(reader.relation, "ACCESS EXCLUSIVE", lockable=False) for reader in relations
        ),
    )


def _lock(connection: Connection, reader: Reader) -> Step:
    """A change that changes nothing: LOCK TABLE would lock all that a view reads as well."""
    row = connection.execute(_OWNER, [reader.oid]).fetchone()
    owner = row[0] if row else ""
    return Step.of(
        connection,
        sql.SQL("ALTER {} {} OWNER TO {}").format(
            reader.word, reader.relation.identifier, sql.Identifier(owner)
        ),
        lock=f"ACCESS EXCLUSIVE on {reader.relation}",
        why="its readers lock it before the table; its owner stays",
    )


def _retire(carrying: Carrying, reader: Reader, places: staging.Places) -> Iterator[Step]:
    """Rename it where its name is taken beside the retired table, then move it there."""
    old, name = reader.relation, places[reader.oid].name
    now: sql.Composable = signature(carrying.connection, reader)
    if name != old.name:
        yield _step(carrying, reader, now, sql.SQL("RENAME TO {}").format(sql.Identifier(name)))
        now = sql.Identifier(old.schema, name)
    retired = sql.Identifier(carrying.names.retired_schema)
    yield _step(carrying, reader, now, sql.SQL("SET SCHEMA {}").format(retired))


def _settle(carrying: Carrying, reader: Reader, places: staging.Places) -> Iterator[Step]:
    """Move it to its place, and give it its name there if it had another."""
    old, place = reader.relation, places[reader.oid]
    now: sql.Composable = place.identifier
    if reader.routine:
        with carrying.relative():
            text = arguments(carrying.connection, reader)
        now = sql.SQL("{}({})").format(now, printed(text))
    home = sql.Identifier(old.schema)
    yield _step(carrying, reader, now, sql.SQL("SET SCHEMA {}").format(home))
    if place.name != old.name:
        moved = sql.Identifier(old.schema, place.name)
        rename = sql.SQL("RENAME TO {}").format(sql.Identifier(old.name))
        yield _step(carrying, reader, moved, rename)


def _step(carrying: Carrying, reader: Reader, name: sql.Composable, action: sql.Composed) -> Step:
    return Step.of(
        carrying.connection,
        sql.SQL("ALTER {} {} {}").format(reader.word, name, action),
        lock="none" if reader.routine else f"ACCESS EXCLUSIVE on {reader.relation}",
        why="what is bound to the new table takes the place of what is bound to the old one",
    )


_OWNER = "SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = %s"

KIND = Kind(
    "view",
    find,
    how="made anew beside the new table, with all that belongs to it; takes its place in the swap",
    hint="Drop it, or give the new table what it reads; it can be created again afterwards.",
    ahead=staging.stage,
    part=part,
    rehearse=staging.rehearse,
)
