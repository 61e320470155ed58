"""What reads the table and is made anew beside the shadow: views, materialized views, functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal, LiteralString

from psycopg import sql

from restructure.errors import OperatorNeeded
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import REPLACED

ReaderKind = Literal["view", "materialized view", "function", "procedure"]

_READERS: LiteralString = (
    REPLACED
    + """,
reader AS (
    SELECT r.classid, r.objid, c.relkind::text, n.nspname, coalesce(c.relname, p.proname) AS name
    FROM replaced r
    LEFT JOIN pg_catalog.pg_class c
      ON r.classid = c.tableoid AND r.objid = c.oid AND c.relkind IN ('v', 'm')
    LEFT JOIN pg_catalog.pg_proc p ON r.classid = p.tableoid AND r.objid = p.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, p.pronamespace)),
part (classid, objid, of) AS (
    SELECT classid, objid, objid FROM reader
    UNION ALL
    SELECT t.tableoid, t.oid, objid FROM reader JOIN pg_catalog.pg_type t ON t.typrelid = objid
    WHERE classid = 'pg_catalog.pg_class'::regclass
    UNION ALL
    SELECT t.tableoid, t.typarray, objid FROM reader JOIN pg_catalog.pg_type t ON t.typrelid = objid
    WHERE classid = 'pg_catalog.pg_class'::regclass
    UNION ALL
    SELECT w.tableoid, w.oid, objid FROM reader JOIN pg_catalog.pg_rewrite w ON w.ev_class = objid
    WHERE classid = 'pg_catalog.pg_class'::regclass AND w.ev_type = '1')
SELECT o.objid::int8, coalesce(o.relkind, (SELECT prokind::text FROM pg_catalog.pg_proc
                                           WHERE oid = o.objid)), o.nspname, o.name,
       (pg_catalog.pg_identify_object(o.classid, o.objid, 0)).identity,
       ARRAY(SELECT DISTINCT used.of::int8
             FROM part mine
             JOIN pg_catalog.pg_depend d ON d.classid = mine.classid AND d.objid = mine.objid
             JOIN part used ON used.classid = d.refclassid AND used.objid = d.refobjid
             WHERE mine.of = o.objid AND used.of <> o.objid)
FROM reader o ORDER BY 4, 5
"""
)

_KINDS: dict[str, ReaderKind] = {
    "v": "view",
    "m": "materialized view",
    "f": "function",
    "w": "function",
    "p": "procedure",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """One of them. ``relation`` is a function's OID, schema and name too.

    ``identity`` is what is said in messages, ``needs`` are the OIDs of those it is bound to.
    """

    relation: Relation
    kind: ReaderKind
    identity: str
    needs: tuple[int, ...]

    @property
    def oid(self) -> int:
        return self.relation.oid

    @property
    def stored(self) -> bool:
        """Whether it holds rows."""
        return self.kind == "materialized view"

    @property
    def routine(self) -> bool:
        return self.kind in ("function", "procedure")

    @property
    def label(self) -> str:
        return f"{self.kind} {self.identity}"

    @property
    def word(self) -> sql.SQL:
        """What ALTER calls it."""
        words: dict[ReaderKind, LiteralString] = {
            "view": "VIEW",
            "materialized view": "MATERIALIZED VIEW",
            "function": "FUNCTION",
            "procedure": "PROCEDURE",
        }
        return sql.SQL(words[self.kind])


def readers(connection: Connection, tree: Iterable[int]) -> tuple[Reader, ...]:
    """Everything that must be made anew with the tables ``tree``, each after what it needs.

    Raises OperatorNeeded where some need each other in a circle.
    """
    found = _read(connection, tree)
    try:
        return _in_order(found)
    except CycleError as circle:
        raise OperatorNeeded(
            f"{_named(found, circle)} are bound to each other: none can be made before the other",
            hint="Drop one of them, and create it again afterwards.",
        ) from None


def circle_among(connection: Connection, tree: Iterable[int]) -> str | None:
    """Those that need each other in a circle, by name."""
    found = _read(connection, tree)
    try:
        _in_order(found)
    except CycleError as circle:
        return _named(found, circle)
    return None


def _read(connection: Connection, tree: Iterable[int]) -> dict[int, Reader]:
    rows = connection.execute(_READERS, {"tree": list(tree)}).fetchall()
    return {
        oid: Reader(Relation(oid, schema, name), _KINDS[kind], identity, tuple(needs))
        for oid, kind, schema, name, identity, needs in rows
    }


def _in_order(found: dict[int, Reader]) -> tuple[Reader, ...]:
    order = TopologicalSorter({oid: found[oid].needs for oid in found}).static_order()
    return tuple(found[oid] for oid in order)


def _named(found: dict[int, Reader], circle: CycleError) -> str:
    return " and ".join(dict.fromkeys(found[oid].label for oid in circle.args[1]))
