"""Policies and rules of other tables whose expressions read this one: bound anew where they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.locks import Wanted
from restructure.postgres.script import Step
from restructure.shape.carry.kind import Carrying, Part
from restructure.shape.carry.things import Place, attempt


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """One thing that hangs on ``other`` and reads our table. pg_depend knows it by ``catalog``, ``oid``.

    ``statement`` binds it anew in the swap, ``trial`` makes it on a stand-in called as ``other``.
    """

    label: str
    catalog: str
    oid: int
    other: Relation
    statement: sql.Composable
    trial: sql.Composable


def compose(carrying: Carrying, found: list[Elsewhere]) -> Part:
    """Whoever uses such a table goes on to lock ours, so they are writers in the sense of Wanted."""
    return Part(
        up=tuple(
            Step.of(
                carrying.connection,
                thing.statement,
                lock=f"ACCESS EXCLUSIVE on {thing.other}",
                why=f"{thing.label}: it means the new table now",
            )
            for thing in found
        ),
        wanted=tuple(Wanted(thing.other, "ACCESS EXCLUSIVE", writer=True) for thing in found),
    )


def reasons(carrying: Carrying, found: list[Elsewhere]) -> Iterator[str]:
    """Why one of them cannot be bound anew, as far as catalogs tell."""
    place = Place(carrying)
    for thing in found:
        if not _is_owner(carrying, thing.other):
            yield f"{thing.label}: only the owner of {thing.other} can change it"
        changed = place.changed_column(thing.catalog, thing.oid)
        if changed:
            yield f"{thing.label}: {changed}"


def rehearse(carrying: Carrying, found: list[Elsewhere]) -> Iterator[str]:
    """Try each on an empty table that stands in for the one it hangs on."""
    for thing in found:
        known = list(reasons(carrying, [thing]))
        yield from known
        if known:
            continue
        with _stand_in(carrying, thing.other):
            refused = attempt(carrying, [thing.trial.as_string(carrying.connection)])
        if refused:
            yield f"{thing.label}: {refused}"


def stand_in_name(carrying: Carrying, other: Relation) -> sql.Identifier:
    """What a trial calls the table that stands in for ``other``."""
    return sql.Identifier(carrying.names.retired_schema, other.name)


@contextmanager
def _stand_in(carrying: Carrying, other: Relation) -> Iterator[None]:
    """Only within there is an empty table like ``other``; takes ACCESS SHARE on it, no more."""
    with carrying.connection.transaction(force_rollback=True):
        carrying.connection.execute(
            sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(
                sql.Identifier(carrying.names.retired_schema)
            )
        )
        carrying.connection.execute(
            sql.SQL("CREATE TABLE {} (LIKE {})").format(
                stand_in_name(carrying, other), other.identifier
            )
        )
        yield


def _is_owner(carrying: Carrying, table: Relation) -> bool:
    row = carrying.connection.execute(
        "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class WHERE oid = %s",
        [table.oid],
    ).fetchone()
    return row == (True,)
