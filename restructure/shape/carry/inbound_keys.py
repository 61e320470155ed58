"""Foreign keys of other tables that point to this one: dropped and added again in the swap.

They are added NOT VALID, which looks at no row, and validated after the commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.postgres.said import refusal
from restructure.postgres.script import Script, Step
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.family import Member, family
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.foreign import (
    LateConstraint,
    not_implied,
    read_inbound_keys,
    stand_in,
)
from restructure.shape.made import SetAside
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "inbound foreign key")


@dataclass(frozen=True, slots=True)
class InboundKey:
    """One foreign key. ``parts``, where its table is partitioned, begin with the key itself."""

    parts: tuple[LateConstraint, ...]
    tables: dict[int, Member]

    @property
    def key(self) -> LateConstraint:
        return self.parts[0]

    @property
    def child(self) -> Relation:
        return self.tables[self.key.table].relation

    def __str__(self) -> str:
        return f"foreign key {self.key.name} of {self.child}"


def inbound_keys(carrying: Carrying) -> list[InboundKey]:
    """The oldest first, for triggers act in the order in which they were made."""
    connection = carrying.connection
    groups: dict[int, list[LateConstraint]] = {}
    for part in read_inbound_keys(connection, [member.relation for member in carrying.old]):
        groups[part.oid] = groups.get(part.parent, [])
        groups[part.oid].append(part)
    found = [parts for oid, parts in groups.items() if parts[0].oid == oid]
    return [InboundKey(tuple(parts), _members(connection, parts[0].table)) for parts in found]


def part(carrying: Carrying) -> Part:
    """Compose what moves each key over. Children are locked as DROP CONSTRAINT locks them."""
    moved = [_moved(carrying, key) for key in inbound_keys(carrying)]
    return Part(
        down=tuple(step for one in moved for step in one.down),
        up=tuple(step for one in moved for step in one.up),
        later=tuple(aside for one in moved for aside in one.later),
        wanted=tuple(wanted for one in moved for wanted in one.wanted),
    )


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Add each key from an empty stand-in of its table to the empty shadow."""
    for key in inbound_keys(carrying):
        reason = _hindrance(carrying, key) or _refusal(carrying, key)
        if reason is not None:
            yield f"{key}: {reason}"


KIND = Kind(
    "inbound foreign key",
    find,
    how="dropped and added again NOT VALID in the swap, validated after it",
    hint="Change the plan, or drop the key and add it again afterwards as it fits.",
    part=part,
    rehearse=rehearse,
)


def _members(connection: Connection, child: int) -> dict[int, Member]:
    members = family(connection, Relation(child, "", ""))
    return {member.relation.oid: member for member in members}


def _moved(carrying: Carrying, key: InboundKey) -> Part:
    """Before PostgreSQL 18 a partitioned table's key cannot be NOT VALID.

    There the leaves get theirs first. When those are validated the key itself adopts them and
    looks at no row (tryAttachPartitionForeignKey in tablecmds.c).
    """
    whole = carrying.connection.info.server_version >= 180000
    at_once = [p for p in key.parts if whole or not key.tables[p.table].partitioned]
    after = [p for p in key.parts if p not in at_once]
    own = not_implied(key.parts)
    leaves = [p for p in at_once if not whole and p not in own]
    added = [*leaves, *own]
    old = _old(carrying, key)
    drop = Step.of(
        carrying.connection,
        key.key.drop(key.child),
        lock=f"ACCESS EXCLUSIVE on {key.child} and {old}",
        why="it points to the table that retires",
    )
    up = [_add(carrying, key, p, unchecked=True) for p in added if p in at_once]
    later = [_add(carrying, key, p, unchecked=False) for p in added if p in after]
    return Part(
        down=(drop,),
        up=(*up, *_remarks(carrying, key, at_once)),
        later=(
            *(_check(carrying, key, p) for p in reversed(at_once) if p.to_validate),
            *(
                SetAside("after", str(key), step.text, step.lock)
                for step in (*later, *_remarks(carrying, key, after))
            ),
        ),
        wanted=tuple(
            Wanted(member.relation, "ACCESS EXCLUSIVE", writer=True)
            for member in key.tables.values()
        ),
    )


def _add(carrying: Carrying, key: InboundKey, one: LateConstraint, *, unchecked: bool) -> Step:
    table, final = key.tables[one.table].relation, _old(carrying, key)
    target = final.identifier.as_string(carrying.connection)
    return Step.of(
        carrying.connection,
        one.add(table, references=target, columns=carrying.columns, unchecked=unchecked),
        lock=f"SHARE ROW EXCLUSIVE on {table} and {final}",
        why="it points to the new table, whose rows are looked at later",
    )


def _remarks(carrying: Carrying, key: InboundKey, parts: list[LateConstraint]) -> Iterator[Step]:
    for one in parts:
        table = key.tables[one.table].relation
        remark = one.remark(table)
        if remark is not None:
            lock = f"SHARE UPDATE EXCLUSIVE on {table}"
            yield Step.of(carrying.connection, remark, lock=lock, why="same comment as before")


def _check(carrying: Carrying, key: InboundKey, one: LateConstraint) -> SetAside:
    table = key.tables[one.table].relation
    return SetAside(
        "after",
        f"{one.name} of {table}",
        one.validate(table).as_string(carrying.connection),
        f"SHARE UPDATE EXCLUSIVE on {table}, ROW SHARE on {_old(carrying, key)}",
    )


def _old(carrying: Carrying, key: InboundKey) -> Relation:
    """What the key points to: by name, also what takes its place."""
    return next(m.relation for m in carrying.old if m.relation.oid == key.key.target)


def _hindrance(carrying: Carrying, key: InboundKey) -> str | None:
    """What the stand-in would not show."""
    owner = carrying.connection.execute(_FOREIGN_OWNER, [key.child.oid]).fetchone()
    if owner is not None:
        return f"the table belongs to {owner[0]}, and {owner[1]} is not a member of that role"
    return switched_off(carrying.connection, [part.oid for part in key.parts])


def switched_off(connection: Connection, keys: list[int]) -> str | None:
    """Say it where somebody has disabled the triggers by which PostgreSQL keeps foreign keys."""
    row = connection.execute(_SWITCHED_OFF, [keys]).fetchone()
    if row is None:
        return None
    return f"{row[0]} has its triggers disabled or altered (ALTER TABLE … DISABLE TRIGGER ALL)"


def _refusal(carrying: Carrying, key: InboundKey) -> str | None:
    """PostgreSQL's own reason why the new table cannot be pointed to."""
    new = next((pair.new for pair in carrying.pairs if pair.old.oid == key.key.target), None)
    if new is None:
        return f"the new table has no partition called {_old(carrying, key).name}"
    connection = carrying.connection
    schema = f"{carrying.names.shadow_schema}_children"
    target = new.identifier.as_string(connection)

    def add() -> None:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        child = stand_in(Script(connection), schema, key.child.oid)
        connection.execute(key.key.add(child, references=target, columns=carrying.columns))

    return refusal(connection, add, keep=False)


_FOREIGN_OWNER = """
SELECT pg_catalog.pg_get_userbyid(relowner), current_user FROM pg_catalog.pg_class
WHERE oid = %s AND NOT pg_catalog.pg_has_role(relowner, 'USAGE')
"""

_SWITCHED_OFF = """
SELECT (pg_catalog.pg_identify_object('pg_catalog.pg_class'::regclass, tgrelid, 0)).identity
FROM pg_catalog.pg_trigger WHERE tgconstraint = ANY(%s::oid[]) AND tgenabled <> 'O' LIMIT 1
"""
