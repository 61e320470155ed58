"""Single dependents of the table: what makes each again, and by name why one cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from psycopg import sql

from restructure.errors import OperatorNeeded
from restructure.model.relation import Relation
from restructure.postgres.locks import Mode, Wanted
from restructure.postgres.said import refusal
from restructure.postgres.script import Step
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.kind import Carrying, Part
from restructure.shape.deparse import looking_in, printed


@dataclass(frozen=True, slots=True)
class Thing:
    """One dependent. ``label`` names it in a refusal ("trigger g on public.t").

    ``catalog`` and ``oid`` are what pg_depend knows it by, ``table`` the member of the source on
    which it hangs. ``steps`` make it again, names looked up by Carrying.look_in_place.
    """

    label: str
    catalog: str
    oid: int
    table: int
    steps: tuple[Step, ...]


class Place:
    """Where things of the old tables go: the new tables, by names that Carrying.staged turns.

    A text that PostgreSQL printed within Carrying.relative names them in the same way.
    """

    def __init__(self, carrying: Carrying) -> None:
        self._carrying = carrying
        self._finals = {pair.old.oid: pair.final for pair in carrying.pairs}
        self._members = {member.relation.oid: member.relation for member in carrying.old}

    def taken(self, oid: int) -> bool:
        """Whether a new table takes the place of the member ``oid``."""
        return oid in self._finals

    def thing(
        self,
        label: str,
        catalog: str,
        oid: int,
        table: int,
        statements: Iterable[sql.Composable],
        lock: Mode,
    ) -> Thing:
        """``lock`` is the strongest that the statements take on the table."""
        old = self._members[table]
        final = self._finals.get(table, old)
        steps = (
            Step.of(
                self._carrying.connection,
                statement,
                lock=f"{lock} on {final}",
                why=f"{label}: as before",
            )
            for statement in statements
        )
        return Thing(label, catalog, oid, table, tuple(steps))

    def table(self, oid: int) -> sql.Identifier:
        """The name of the table in the place of the member ``oid``."""
        return sql.Identifier(self._members[oid].name)

    def reason(self, thing: Thing) -> str | None:
        """Why ``thing`` cannot be carried, as far as catalogs tell."""
        table = self._members[thing.table]
        if thing.table not in self._finals:
            return f"the new table has no partition {table.name}"
        if thing.table in self._hidden:
            return f"{table} is hidden by another table of that name"
        return self.changed_column(thing.catalog, thing.oid)

    @cached_property
    def _hidden(self) -> set[int]:
        connection, path = self._carrying.connection, self._carrying.path
        with looking_in(connection, *path):
            rows = connection.execute(_HIDDEN, self._carrying.tree).fetchall()
        return {oid for (oid,) in rows}

    @cached_property
    def _new_columns(self) -> set[str]:
        rows = self._carrying.connection.execute(_COLUMNS, [self._carrying.shadow.relation.oid])
        return {name for (name,) in rows}

    def heir(self, column: str) -> str | None:
        """What ``column`` is called in the new table; None where the plan drops it."""
        new = self._carrying.columns.get(column, column)
        return new if new in self._new_columns else None

    def changed_column(self, catalog: str, oid: int) -> str | None:
        """What a text that names the old columns would get wrong, though it may be accepted."""
        for (column,) in self._carrying.connection.execute(
            _MENTIONED, _known_as(self._carrying, catalog, oid)
        ).fetchall():
            new = self.heir(column)
            if new is None:
                return f"it uses column {column}, which the new table does not have"
            if new != column:
                return f"it uses column {column}, which is called {new} in the new table"
        return None


def compose(carrying: Carrying, things: Sequence[Thing], mode: Mode = "ACCESS SHARE") -> Part:
    """Make ``things`` again in the swap; ``mode`` is how their definitions lock what they mention.

    Raises OperatorNeeded where one cannot be carried: it was made after the checks.
    """
    refuse(reasons(carrying, things))
    return Part(
        up=tuple(step for thing in things for step in thing.steps),
        wanted=tuple(w for thing in things for w in mentioned(carrying, thing, mode)),
    )


def reasons(carrying: Carrying, things: Sequence[Thing]) -> Iterator[str]:
    """Why each thing that cannot be carried cannot, as far as catalogs tell."""
    place = Place(carrying)
    for thing in things:
        reason = place.reason(thing)
        if reason:
            yield f"{thing.label}: {reason}"


def refuse(found: Iterable[str]) -> None:
    """Raise OperatorNeeded for the first reason."""
    for reason in found:
        raise OperatorNeeded(
            f"what hangs on the table does not fit the new one: {reason}",
            hint="It was made after the checks. Nothing has changed for clients: drop it, or "
            "make it fit, and run the same command again.",
        )


def rehearse(carrying: Carrying, things: Sequence[Thing]) -> Iterator[str]:
    """Make each thing on the shadow, and say which one PostgreSQL refuses and why."""
    place = Place(carrying)
    for thing in things:
        reason = place.reason(thing) or attempt(carrying, [step.text for step in thing.steps])
        if reason:
            yield f"{thing.label}: {reason}"


def attempt(carrying: Carrying, texts: Iterable[str]) -> str | None:
    """Run statements where names mean the shadow; PostgreSQL's reason if it refuses.

    Tables that they mention are locked as weakly as by a client.
    """

    def run() -> None:
        with carrying.staged():
            for text in texts:
                carrying.connection.execute(printed(text))

    return refusal(carrying.connection, run)


def mentioned(carrying: Carrying, thing: Thing, mode: Mode) -> Iterator[Wanted]:
    """The other tables and views that making ``thing`` again locks."""
    parameters = _known_as(carrying, thing.catalog, thing.oid)
    for oid, schema, name, lockable in carrying.connection.execute(_OTHERS, parameters).fetchall():
        yield Wanted(Relation(oid, schema, name), mode, lockable=lockable)


def unknown(found: Iterable[Dependent], known: Iterable[int], why: str) -> Iterator[str]:
    """What hangs on the table and is none of ``known``, by OID, of one kind."""
    oids = set(known)
    for dependent in found:
        if dependent.oid not in oids:
            yield f"{dependent.kind} {dependent.name}: {why}"


def joined(one: Part, other: Part) -> Part:
    """Both parts of one kind."""
    return replace(
        one, down=one.down + other.down, up=one.up + other.up, wanted=one.wanted + other.wanted
    )


def _known_as(carrying: Carrying, catalog: str, oid: int) -> dict[str, Any]:
    return {**carrying.tree, "catalog": f"pg_catalog.{catalog}", "oid": oid}


_HIDDEN = """
SELECT oid::int8 FROM unnest(%(tree)s::oid[]) AS oid WHERE NOT pg_catalog.pg_table_is_visible(oid)
"""

_COLUMNS = """
SELECT attname FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""

_MENTIONED = """
SELECT DISTINCT a.attname FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = %(catalog)s::regclass AND d.objid = %(oid)s AND d.refobjsubid > 0
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = ANY(%(tree)s::oid[])
ORDER BY 1
"""

_OTHERS = """
SELECT DISTINCT c.oid::int8, n.nspname, c.relname, c.relkind IN ('r', 'p')
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE d.classid = %(catalog)s::regclass AND d.objid = %(oid)s
  AND d.refclassid = 'pg_catalog.pg_class'::regclass AND c.oid <> ALL(%(tree)s::oid[])
ORDER BY 1
"""
