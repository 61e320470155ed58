"""Which rows a partitioned table has a partition for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from psycopg import sql

from restructure.postgres.connect import Connection
from restructure.shape.deparse import canonical, printed

_BY_HASH = "satisfies_hash_partition("
_MODULUS = re.compile(r"WITH \(modulus (\d+), remainder \d+\)")
_OR = sql.SQL(" OR ")


class Unjudged(Exception):
    """What a partition demands cannot be asked from outside of the transaction that made it."""


@dataclass(frozen=True, slots=True)
class _Member:
    """``demand``: the condition on its rows, and on those of what it is a partition of."""

    oid: int
    parent: int
    strategy: str  # pg_partitioned_table.partstrat; '' of a leaf
    default: bool
    bound: str
    demand: str


class Bounds:
    """The tree of partitions of one table, read once."""

    def __init__(self, connection: Connection, root: int) -> None:
        with canonical(connection):
            rows = connection.execute(_TREE, {"root": root}).fetchall()
        self._members = {row[0]: _Member(*row) for row in rows}
        self._root = root

    def fit(self) -> sql.Composable | None:
        """True where a partition takes the row; None where every row finds one.

        Raises Unjudged for what depends on a hash.
        """
        if self._root not in self._members:  # not partitioned
            return None
        return self._fit(self._members[self._root])

    def inside(self, leaf: int) -> sql.Composable:
        """True where the row goes to this leaf. Raises Unjudged."""
        demand = self._demand(self._members[leaf])
        return sql.SQL("({}) IS TRUE").format(demand)

    def _fit(self, member: _Member) -> sql.Composable | None:
        if not member.strategy:
            return None
        children = [one for one in self._members.values() if one.parent == member.oid]
        if member.strategy == "h":
            self._must_all_fit(children)
            return None
        plain = [one for one in children if not one.default]
        below = {one.oid: self._fit(one) for one in children}
        default = next((one for one in children if one.default), None)
        if default is not None and not any(below.values()):
            return None
        taken: list[sql.Composable] = [
            sql.SQL("({}) IS TRUE").format(self._demand(one)) for one in plain
        ]
        terms: list[sql.Composable] = [
            _and(demand, below[one.oid]) for one, demand in zip(plain, taken, strict=True)
        ]
        if default is not None:
            elsewhere = sql.SQL("NOT ({})").format(_OR.join(taken or [sql.SQL("false")]))
            terms.append(_and(elsewhere, below[default.oid]))
        return sql.SQL("({})").format(_OR.join(terms or [sql.SQL("false")]))

    def _must_all_fit(self, children: list[_Member]) -> None:
        if any(self._fit(one) is not None for one in children):
            raise Unjudged("partitions below a partitioning by hash")
        moduli = [_MODULUS.search(one.bound) for one in children]
        covered = sum((Fraction(1, int(found[1])) for found in moduli if found), Fraction())
        if covered != 1:
            raise Unjudged("a partitioning by hash lacks a partition for some remainder")

    @staticmethod
    def _demand(member: _Member) -> sql.Composable:
        if _BY_HASH in member.demand:
            raise Unjudged("it depends on a partitioning by hash")
        return printed(member.demand or "true")


def _and(one: sql.Composable, other: sql.Composable | None) -> sql.Composable:
    return one if other is None else sql.SQL("({} AND {})").format(one, other)


_TREE = """
WITH RECURSIVE tree AS (
    SELECT %(root)s::oid AS oid, 0::oid AS parent, 0 AS level
    UNION ALL
    SELECT i.inhrelid, i.inhparent, t.level + 1
    FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid)
SELECT t.oid::int8, t.parent::int8, coalesce(p.partstrat::text, ''),
       coalesce(above.partdefid = t.oid, false), coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
       CASE WHEN t.level > 0 THEN coalesce(pg_get_partition_constraintdef(t.oid), '') ELSE '' END
FROM tree t JOIN pg_class c ON c.oid = t.oid
LEFT JOIN pg_partitioned_table p ON p.partrelid = t.oid
LEFT JOIN pg_partitioned_table above ON above.partrelid = t.parent
WHERE EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = %(root)s)
ORDER BY t.level, t.oid
"""
