"""Sequences behind columns: a serial's own goes on counting, an identity's hands its place on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Step
from restructure.shape.made import SetAside
from restructure.shape.table import Table

_OWNED = """
SELECT s.oid::int8, n.nspname, s.relname, a.attname, d.deptype = 'i', q.seqtypid::regtype::text
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_catalog.pg_class'::regclass
  AND d.refclassid = 'pg_catalog.pg_class'::regclass
  AND d.refobjid = %(table)s AND d.deptype IN ('a', 'i')
ORDER BY s.oid
"""

_DRAWN = """
SELECT d.refobjid::int8, a.attname,
       CASE WHEN a.atttypid IN (20, 21, 23) THEN a.atttypid::regtype::text END
FROM pg_catalog.pg_attrdef x
JOIN pg_catalog.pg_attribute a ON a.attrelid = x.adrelid AND a.attnum = x.adnum
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = x.oid
  AND d.refclassid = 'pg_catalog.pg_class'::regclass
WHERE x.adrelid = %(table)s
ORDER BY x.adnum
"""

_WIDTH = {"smallint": 2, "integer": 4, "bigint": 8}
_INTERNAL = {"smallint": "int2", "integer": "int4", "bigint": "int8"}

_TAKE_OVER = """
SELECT pg_catalog.setval({taker_name}::regclass,
                         CASE WHEN safe BETWEEN low AND high THEN safe
                              WHEN exact BETWEEN low AND high THEN exact
                              WHEN upward THEN high ELSE low END::int8,
                         NOT (safe BETWEEN low AND high OR exact BETWEEN low AND high))
FROM (SELECT t.seqmin AS low, t.seqmax AS high, t.seqincrement > 0 AS upward,
             CASE WHEN t.seqincrement > 0 THEN GREATEST(old.next + old.block, new.next)
                  ELSE LEAST(old.next + old.block, new.next) END AS safe,
             CASE WHEN t.seqincrement > 0 THEN GREATEST(old.next, new.next)
                  ELSE LEAST(old.next, new.next) END AS exact
      FROM (SELECT CASE WHEN is_called THEN last_value + seqincrement::numeric
                        ELSE last_value END AS next,
                   seqincrement::numeric * seqcache
                     * pg_catalog.current_setting('max_connections')::int4 AS block,
                   sign(seqincrement) AS direction
            FROM {giver}, pg_catalog.pg_sequence WHERE seqrelid = {giver_name}::regclass) AS old,
           (SELECT CASE WHEN is_called THEN last_value + seqincrement::numeric
                        ELSE last_value END AS next
            FROM {taker}, pg_catalog.pg_sequence WHERE seqrelid = {taker_name}::regclass) AS new,
           pg_catalog.pg_sequence AS t
      WHERE t.seqrelid = {taker_name}::regclass AND sign(t.seqincrement) = old.direction) AS place
"""
"""Next value of the new sequence: after the old one's, and never before its own.

In numeric, for a bigint may overflow at the end of its range. Where nothing is left, the new one
is put at its limit as called, so that nextval says so (or begins anew, under CYCLE).

The jump: moving the old table locks its sequence, and a session that calls nextval meanwhile has
looked up the old one already: when it goes on after the commit it draws one more block (increment
x cache) from there. There can be max_connections such sessions.
"""


@dataclass(frozen=True, slots=True)
class OwnedSequence:
    """A sequence that belongs to a column. ``identity``: made by GENERATED … AS IDENTITY."""

    relation: Relation
    column: str
    identity: bool
    type_sql: str


def owned_sequences(connection: Connection, table: Relation) -> list[OwnedSequence]:
    """The sequences that move, change owner and are dropped together with ``table``."""
    rows = connection.execute(_OWNED, {"table": table.oid}).fetchall()
    return [
        OwnedSequence(Relation(oid, schema, name), column, identity, type_sql)
        for oid, schema, name, column, identity, type_sql in rows
    ]


@dataclass(frozen=True, slots=True)
class SequenceSteps:
    """``before`` and ``after`` the two tables moved, and the sequences whose lock they need.

    ``back``: what is undone should the source come back.
    """

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    locked: tuple[Relation, ...]
    back: tuple[SetAside, ...]


def sequence_steps(
    connection: Connection,
    source: Relation,
    shadow: Relation,
    origins: dict[str, str],
    retired_schema: str,
) -> SequenceSteps:
    """What happens to the sequences of ``source``; ``origins`` maps new column to old column.

    A serial's sequence that the shadow's default draws from stays where it is: it is
    taken from the old column before the move (for it would move along) and given to the
    new column after it (owner and owned must share a schema). A sequence of the shadow's own
    takes over from that of the old column, and the old one leaves with its table.
    """
    old = {sequence.relation.oid: sequence for sequence in owned_sequences(connection, source)}
    drawn = {
        oid: (column, type_sql)
        for oid, column, type_sql in connection.execute(_DRAWN, {"table": shadow.oid}).fetchall()
    }
    before: list[Step] = []
    after: list[Step] = []
    back: list[SetAside] = []
    for oid, sequence in old.items():
        if sequence.identity or oid not in drawn:
            continue
        column, type_sql = drawn[oid]
        before.append(_own(connection, sequence.relation, None))
        after.append(_own(connection, sequence.relation, (source, column)))
        if type_sql and _WIDTH[type_sql] > _WIDTH[sequence.type_sql]:
            after.append(_widen(connection, sequence.relation, type_sql))
            back.append(_narrow(connection, sequence))
    for giver, taker in successors(connection, source, shadow, origins):
        stays = giver.relation.oid in drawn and not giver.identity
        left = giver.relation if stays else replace(giver.relation, schema=retired_schema)
        moved = replace(taker.relation, schema=source.schema)
        after.append(_take_over(connection, left, moved))
    new = owned_sequences(connection, shadow)
    locked = (*(s.relation for s in old.values()), *(s.relation for s in new))
    return SequenceSteps(tuple(before), tuple(after), locked, tuple(back))


def successors(
    connection: Connection, source: Relation, shadow: Relation, origins: dict[str, str]
) -> list[tuple[OwnedSequence, OwnedSequence]]:
    """Which sequence of ``shadow`` (second) takes over from which of ``source`` (first)."""
    old = {sequence.column: sequence for sequence in owned_sequences(connection, source)}
    pairs = [
        (old.get(origins.get(sequence.column, "")), sequence)
        for sequence in owned_sequences(connection, shadow)
    ]
    return [(giver, taker) for giver, taker in pairs if giver is not None]


def identities_to_come_back(connection: Connection, table: Table) -> list[SetAside]:
    """GENERATED ALWAYS would refuse an UPDATE by the reverse merge: it is so again when back."""
    return [
        SetAside(
            "swap",
            column.name,
            generated(table.relation, column.name, "ALWAYS").as_string(connection),
            f"ACCESS EXCLUSIVE on {table.relation}",
        )
        for column in table.columns
        if column.identity == "a"
    ]


def generated(table: Relation, column: str, word: LiteralString) -> sql.Composed:
    """The statement that sets whether clients may give the identity column a value."""
    return sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET GENERATED {}").format(
        table.identifier, sql.Identifier(column), sql.SQL(word)
    )


def _own(connection: Connection, sequence: Relation, owner: tuple[Relation, str] | None) -> Step:
    column: sql.Composable = sql.SQL("NONE")
    if owner is not None:
        column = sql.Identifier(owner[0].schema, owner[0].name, owner[1])
    return Step.of(
        connection,
        sql.SQL("ALTER SEQUENCE {} OWNED BY {}").format(sequence.identifier, column),
        lock=f"SHARE ROW EXCLUSIVE on {sequence}",
        why="the serial goes on counting" if owner else "the serial must not leave with its table",
    )


def _widen(connection: Connection, sequence: Relation, type_sql: str) -> Step:
    statement = sql.SQL("ALTER SEQUENCE {} AS {}").format(
        sequence.identifier, sql.Identifier("pg_catalog", _INTERNAL[type_sql])
    )
    return Step.of(
        connection,
        statement,
        lock=f"SHARE ROW EXCLUSIVE on {sequence}",
        why="the column is wider now, and so may the serial be",
    )


def _narrow(connection: Connection, sequence: OwnedSequence) -> SetAside:
    """As narrow as it was, unless it has counted too far: then the column refuses what it draws."""
    statement = sql.SQL(
        "DO $narrow$ BEGIN ALTER SEQUENCE {} AS {}; EXCEPTION WHEN invalid_parameter_value THEN"
        " NULL; END $narrow$"
    ).format(
        sequence.relation.identifier,
        sql.Identifier("pg_catalog", _INTERNAL[sequence.type_sql]),
    )
    lock = f"SHARE ROW EXCLUSIVE on {sequence.relation}"
    return SetAside("swap", sequence.relation.name, statement.as_string(connection), lock)


def _take_over(connection: Connection, giver: Relation, taker: Relation) -> Step:
    statement = sql.SQL(_TAKE_OVER).format(
        giver=giver.identifier,
        taker=taker.identifier,
        giver_name=sql.Literal(giver.identifier.as_string(connection)),
        taker_name=sql.Literal(taker.identifier.as_string(connection)),
    )
    return Step.of(
        connection,
        statement,
        lock=f"ROW EXCLUSIVE on {taker}",
        why="the new sequence goes on after the last value of the old one",
    )
