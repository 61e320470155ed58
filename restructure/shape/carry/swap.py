"""The statements that put the shadow where the source is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from restructure.model.names import Names
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import MODES, Wanted
from restructure.postgres.script import Step
from restructure.shape.aside import keys_to_come_back
from restructure.shape.carry.comments import foreign_key_comments
from restructure.shape.carry.family import (
    Member,
    column_origins,
    counterpart,
    final_place,
)
from restructure.shape.carry.foreign_keys import (
    drop_key_step,
    outbound_keys,
    referenced_tables,
)
from restructure.shape.carry.kind import Carrying, Part
from restructure.shape.carry.kinds import CARRIED
from restructure.shape.carry.sequences import identities_to_come_back, sequence_steps
from restructure.shape.carry.tripwire import drop_tripwire_step, has_tripwire, tripwire_step
from restructure.shape.made import SetAside, Shadow
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class Swap:
    """Composed before the lock, run under it.

    ``wanted``: every lock the steps take, the source first and the rest in one fixed order
    (by OID), each with its mode. Take those with ``lockable`` explicitly (the source with its
    short timeout, the others NOWAIT); sequences and views cannot be locked by LOCK TABLE, they
    are here so that one can look who holds them first. ``first`` are steps that lock something
    which must be locked before the source. ``later`` is what the commit leaves to do, ``back``
    what the source loses by retiring, should it come back.
    """

    carrying: Carrying
    wanted: tuple[Wanted, ...]
    first: tuple[Step, ...]
    steps: tuple[Step, ...]
    later: tuple[SetAside, ...]
    back: tuple[SetAside, ...]


def swap_steps(connection: Connection, source: Table, shadow: Shadow, names: Names) -> Swap:
    """Compose everything between the final merge and the phase change.

    Reads catalogs only, so it can run before the lock, and in the rolled-back
    transaction of ``plan``. The catalogs must not change between this and
    :func:`run_swap`, which the fingerprint under the lock assures.
    """
    carrying = Carrying.of(connection, source, shadow, names)
    parts = [kind.part(carrying) for kind in CARRIED if kind.part is not None]
    old, new = carrying.old, carrying.new
    origins = column_origins(source, shadow.mapping)
    sequences = sequence_steps(
        connection, source.relation, shadow.relation, origins, names.retired_schema
    )
    made = [aside for aside in shadow.set_aside if aside.moment == "swap"]
    up = [step for part in parts for step in part.up]
    steps = (
        *(step for part in reversed(parts) for step in part.down),
        *sequences.before,
        *(_retire(connection, member, names.retired_schema) for member in old),
        *_settle(connection, old, new),
        *_forsake(connection, old, names.retired_schema),
        *_unguard(connection, old, new),
        *sequences.after,
        *(Step(aside.statement, aside.lock, f"{aside.name} comes only now") for aside in made),
        *_comments(connection, old, new, made),
        *([carrying.look_in_place(), *up] if up else ()),
        *_guard(connection, source, old, new, names.retired_schema),
    )
    return Swap(
        carrying,
        _wanted(connection, old, new, sequences.locked, made, parts),
        tuple(step for part in parts for step in part.first),
        steps,
        tuple(aside for part in parts for aside in part.later),
        (
            *_stray(connection, old, new),
            *keys_to_come_back(connection, source),
            *identities_to_come_back(connection, source),
            *sequences.back,
        ),
    )


def run_swap(connection: Connection, swap: Swap) -> None:
    """Run all steps in one round trip, inside the caller's transaction.

    One string of several statements goes by the simple protocol, in which the server parses
    each one after it has run those before it (PostgreSQL docs, protocol-flow).
    """
    text = ";\n".join(step.text for step in swap.steps)
    connection.execute(text)


def _retire(connection: Connection, member: Member, retired_schema: str) -> Step:
    return _move(connection, member.relation, retired_schema, "the source retires")


def _settle(
    connection: Connection, old: tuple[Member, ...], new: tuple[Member, ...]
) -> Iterator[Step]:
    for member in new:
        place = final_place(member.relation, new[0].relation, old)
        yield _move(connection, member.relation, place.schema, "the shadow takes its place")


def _stray(
    connection: Connection, old: tuple[Member, ...], new: tuple[Member, ...]
) -> Iterator[SetAside]:
    """Partitions in a schema of their own that nothing of the new table stands for.

    Should they come back, they come beside the root, as whatever is new there does.
    """
    home = old[0].relation.schema
    taken = {place.oid for m in new if (place := counterpart(m.relation, new[0].relation, old))}
    for member in old:
        if member.relation.schema != home and member.relation.oid not in taken:
            there = replace(member.relation, schema=home)
            step = _move(connection, there, member.relation.schema, "where it was")
            yield SetAside("swap", member.relation.name, step.text, step.lock)


def _move(connection: Connection, table: Relation, schema: str, why: str) -> Step:
    return Step.of(
        connection,
        sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(table.identifier, sql.Identifier(schema)),
        lock=f"ACCESS EXCLUSIVE on {table}",
        why=why,
    )


def _comments(
    connection: Connection, old: tuple[Member, ...], new: tuple[Member, ...], made: list[SetAside]
) -> Iterator[Step]:
    """Comments on the constraints that come only now."""
    for member in new:
        taken = counterpart(member.relation, new[0].relation, old)
        final = final_place(member.relation, new[0].relation, old)
        adding = sql.SQL("ALTER TABLE {} ADD CONSTRAINT ").format(final.identifier)
        start = adding.as_string(connection)
        names = {aside.name for aside in made if aside.statement.startswith(start)}
        if taken is not None and names:
            yield from foreign_key_comments(connection, taken, final, names)


def _forsake(
    connection: Connection, old: tuple[Member, ...], retired_schema: str
) -> Iterator[Step]:
    for member in old:
        retired = replace(member.relation, schema=retired_schema)
        for key in outbound_keys(connection, member.relation):
            yield drop_key_step(connection, retired, key)


def _unguard(
    connection: Connection, old: tuple[Member, ...], new: tuple[Member, ...]
) -> Iterator[Step]:
    """A table that was retired itself has a tripwire since."""
    for member in new:
        if has_tripwire(connection, member.relation):
            place = final_place(member.relation, new[0].relation, old)
            yield drop_tripwire_step(connection, place)


def _guard(
    connection: Connection,
    source: Table,
    old: tuple[Member, ...],
    new: tuple[Member, ...],
    retired_schema: str,
) -> Iterator[Step]:
    places = {m.relation.name: final_place(m.relation, new[0].relation, old) for m in new[1:]}
    for member in old:
        retired = replace(member.relation, schema=retired_schema)
        final = places.get(member.relation.name, source.relation)
        yield tripwire_step(connection, retired, final)


def _wanted(
    connection: Connection,
    old: tuple[Member, ...],
    new: tuple[Member, ...],
    sequences: tuple[Relation, ...],
    made: list[SetAside],
    parts: list[Part],
) -> tuple[Wanted, ...]:
    """The source's root first, for it is the one that all fight for.

    Dropping a foreign key takes ACCESS EXCLUSIVE on its parent too, adding one SHARE ROW EXCLUSIVE.
    """
    found = [Wanted(member.relation, "ACCESS EXCLUSIVE") for member in (*old, *new)]
    found += [
        Wanted(key.parent, "ACCESS EXCLUSIVE")
        for member in old
        for key in outbound_keys(connection, member.relation)
    ]
    found += [Wanted(sequence, "ACCESS EXCLUSIVE", lockable=False) for sequence in sequences]
    found += [
        Wanted(parent, "SHARE ROW EXCLUSIVE")
        for aside in made
        for parent in referenced_tables(connection, aside.statement)
    ]
    found += [wanted for part in parts for wanted in part.wanted]
    by_oid: dict[int, Wanted] = {}
    for wanted in found:
        known = by_oid.setdefault(wanted.relation.oid, wanted)
        strongest = max(known, wanted, key=lambda one: MODES.index(one.mode))
        writer = known.writer or wanted.writer
        by_oid[wanted.relation.oid] = replace(strongest, writer=writer)
    first = by_oid.pop(old[0].relation.oid)
    return (first, *(by_oid[oid] for oid in sorted(by_oid)))
