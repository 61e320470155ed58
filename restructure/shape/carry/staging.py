"""Views, materialized views and row-type functions, made anew beside the shadow ahead of the swap.

Each is created in the shadow's schema from the text that PostgreSQL prints, where the table's
name means the shadow: bound to it by OID, it needs nothing more in the swap than SET SCHEMA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from psycopg import sql

from restructure.errors import OperatorNeeded
from restructure.model.relation import Relation
from restructure.postgres.script import Script
from restructure.shape.carry import bindings
from restructure.shape.carry.closure import Reader, readers
from restructure.shape.carry.kind import Carrying
from restructure.shape.carry.ownership import carry_grants, carry_owner
from restructure.shape.carry.recipe import Recipe, checking_bodies, recipe, signature
from restructure.shape.carry.routine_rights import carry_routine_rights

Places = dict[int, Relation]
"""OID of a reader to where its successor stands before the swap."""


def stage(script: Script, carrying: Carrying) -> None:
    """Make anew what reads the table, unless all of it is there as it is now.

    Raises OperatorNeeded where PostgreSQL refuses one: the new table does not fit it.
    """
    refuse(_stage(script, carrying), carrying)


def refuse(reasons: Iterator[str], carrying: Carrying) -> None:
    """Raise OperatorNeeded for the first reason."""
    for reason in reasons:
        raise OperatorNeeded(
            f"what hangs on {carrying.source.relation} does not fit the new table: {reason}",
            hint="Nothing has changed for clients: drop it, or make it fit, and run the same "
            "command again.",
        )


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Make all of it on the empty shadow, and say what PostgreSQL refuses."""
    try:
        yield from _stage(Script(carrying.connection), carrying)
    except OperatorNeeded as refused:
        yield refused.message


def beside(carrying: Carrying, found: Sequence[Reader]) -> Places:
    """Where each stands before the swap: in the shadow's schema, by its own name if that is free.

    The old one retires under the same name. Routines always keep theirs: it may be free for
    their arguments.
    """
    schema = carrying.names.shadow_schema
    rows = carrying.connection.execute(_TAKEN, [schema]).fetchall()
    taken = {name for (name,) in rows} | {member.relation.name for member in carrying.old}
    places = {}
    for reader in found:
        name = reader.relation.name
        if not reader.routine:
            name = f"restructure_{reader.oid}" if name in taken else name
            taken.add(name)
        places[reader.oid] = replace(reader.relation, schema=schema, name=name)
    return places


def _stage(script: Script, carrying: Carrying) -> Iterator[str]:
    found = readers(script.connection, carrying.tree["tree"])
    state = bindings.state(carrying, found)
    if bindings.remembered(carrying) != state:
        _clear(script, carrying)
        yield from _Staging(script, carrying, found).run()
        bindings.remember(script, carrying, state)


def _clear(script: Script, carrying: Carrying) -> None:
    """Drop what was made before: it may have changed since, or be gone."""
    staged = readers(script.connection, [member.relation.oid for member in carrying.new])
    for reader in reversed(staged):
        if reader.relation.schema == carrying.names.shadow_schema:
            script.run(
                sql.SQL("DROP {} {}").format(reader.word, signature(script.connection, reader)),
                lock=f"ACCESS EXCLUSIVE on {reader.relation}",
                why="what reads the table has changed since this was made",
            )


class _Staging:
    """Makes all readers, first each by itself, then what belongs to each and may need any other."""

    def __init__(self, script: Script, carrying: Carrying, found: Sequence[Reader]) -> None:
        self._script = script
        self._connection = script.connection
        self._carrying = carrying
        self._found = found
        self._places = beside(carrying, found)
        self._made: Places = {}

    def run(self) -> Iterator[str]:
        """Yield why something cannot be made; what needs that is not tried."""
        recipes = self._read()
        for reader in self._found:
            if self._made.keys() >= set(reader.needs):
                reason = self._create(reader, recipes[reader.oid])
                if reason:
                    yield reason
        for reader in self._found:
            if reader.oid in self._made:
                yield from self._finish(reader, recipes[reader.oid])
        astray = bindings.still_bound(self._carrying, [made.oid for made in self._made.values()])
        for reader in self._found:
            made = self._made.get(reader.oid)
            if made is not None and made.oid in astray:
                yield bindings.astray(reader.label, astray[made.oid])

    def _read(self) -> dict[int, Recipe]:
        """What PostgreSQL prints. It locks what a query mentions: the locks are given back at once."""
        with self._connection.transaction(force_rollback=True), self._carrying.relative():
            return {
                reader.oid: recipe(self._connection, reader, self._places[reader.oid])
                for reader in self._found
            }

    def _create(self, reader: Reader, made: Recipe) -> str | None:
        def create() -> None:
            if reader.routine:
                self._script.run(
                    checking_bodies(made.checked), lock="none", why="what can be read in its body"
                )
            self._run(made.create, f"{reader.label}, bound to the new table")

        reason = bindings.refused(self._carrying, reader.label, create)
        if reason is None:
            self._made[reader.oid] = self._newest(reader)
        return reason

    def _newest(self, reader: Reader) -> Relation:
        """What was just created, with its OID; a routine may have namesakes."""
        place = self._places[reader.oid]
        others = [made.oid for made in self._made.values()]
        query = _ROUTINE if reader.routine else _RELATION
        row = self._connection.execute(query, [place.schema, place.name, others]).fetchone()
        assert row is not None
        return replace(place, oid=row[0])

    def _finish(self, reader: Reader, made: Recipe) -> Iterator[str]:
        """What belongs to it, then its owner and grants."""

        def finish() -> None:
            for statement in made.finish:
                self._run(statement, f"belongs to {reader.label}")

        reason = bindings.refused(self._carrying, reader.label, finish)
        if reason:
            yield reason
            return
        target = self._made[reader.oid]
        if reader.routine:
            carry_routine_rights(self._script, reader, target)
            return
        carry_owner(self._script, reader.relation, target)
        rows = self._connection.execute(_COLUMNS, [reader.oid]).fetchall()
        columns = {name: name for (name,) in rows}
        carry_grants(self._script, reader.relation, target, "TABLE", columns)

    def _run(self, statement: sql.Composable, why: str) -> None:
        lock = f"ACCESS SHARE on {self._carrying.shadow.relation}"
        self._script.run(statement, lock=lock, why=why)


_TAKEN = """
SELECT c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_catalog.pg_class m ON m.oid = i.indrelid
WHERE n.nspname = %s AND c.relkind NOT IN ('v', 'm') AND m.relkind IS DISTINCT FROM 'm'
"""

_RELATION = """
SELECT c.oid::int8 FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.oid <> ALL(%s::oid[])
"""

_ROUTINE = """
SELECT p.oid::int8 FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %s AND p.proname = %s AND p.oid <> ALL(%s::oid[])
"""

_COLUMNS = """
SELECT attname FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""
