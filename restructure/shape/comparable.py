"""How the rows of source and shadow can be compared: in which order, and column by column in which form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.casts import (
    DATE,
    FLOAT4,
    FLOAT8,
    INT2,
    INT4,
    INT8,
    TEXT,
    TIMESTAMP,
    VARCHAR,
    TypeFacts,
    base_type_sql,
    column_facts,
)
from restructure.shape.mapping import Mapping

_ORDERED_TOGETHER = ({INT2, INT4, INT8}, {FLOAT4, FLOAT8}, {TEXT, VARCHAR}, {DATE, TIMESTAMP})
"""Types that one btree family compares with each other: int8 has the order of the int4 it was made from."""


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key column of the source and the one of the shadow that holds it, as their types are named.

    Domains are resolved. ``nullable``: nothing keeps a NULL out of the shadow's column.
    """

    source: str
    target: str
    source_base: str
    target_base: str
    source_collation: str | None
    target_collation: str | None
    nullable: bool


@dataclass(frozen=True, slots=True)
class Comparable:
    """What there is to know for a comparison.

    ``ordered``: both sides can be read in one order of keys, by indexes, between the same bounds.
    ``ranged``: how many leading key columns an index of the source finds ranges by.
    ``unique``: no key can be in the shadow twice. ``as_text``: columns of a type that has no binary
    form. ``direct``: this server can hash bytes without a detour.
    """

    key: tuple[HeldKey, ...]
    ordered: bool
    ranged: int
    unique: bool
    as_text: frozenset[str]
    direct: bool


def read_comparable(
    connection: Connection, source: Relation, target: Relation, mapping: Mapping, key: Sequence[str]
) -> Comparable:
    """Look up both tables. ``key`` are the source's key columns in their order."""
    pairs = {pair.source: pair for pair in mapping.key}
    targets = [pairs[name].target for name in key]
    olds = [_column(connection, source, name) for name in key]
    news = [_column(connection, target, name) for name in targets]
    same = all(_same_order(old.facts, new.facts) for old, new in zip(olds, news, strict=True))
    source_index = _in_order(connection, source, [old.number for old in olds])
    target_index = _in_order(connection, target, [new.number for new in news])
    held = tuple(
        HeldKey(
            name,
            holder,
            base_type_sql(connection, old.facts.oid),
            base_type_sql(connection, new.facts.oid),
            old.collation,
            new.collation,
            not new.not_null,
        )
        for name, holder, old, new in zip(key, targets, olds, news, strict=True)
    )
    return Comparable(
        key=held,
        ordered=same and source_index and target_index,
        ranged=len(key) if source_index else 1,
        unique=_unique(connection, target, [new.number for new in news]),
        as_text=_without_binary_form(connection, target, mapping),
        direct=connection.info.server_version >= 180000,
    )


@dataclass(frozen=True, slots=True)
class _KeyColumn:
    number: int
    facts: TypeFacts
    collation: str | None
    not_null: bool


def _column(connection: Connection, table: Relation, name: str) -> _KeyColumn:
    row = connection.execute(
        """SELECT a.attnum, a.attnotnull, CASE WHEN a.attcollation <> 0 THEN
                  (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c
                   JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END
           FROM pg_attribute a WHERE a.attrelid = %s AND a.attname = %s AND NOT a.attisdropped""",
        (table.oid, name),
    ).fetchone()
    assert row is not None
    number, not_null, collation = row
    return _KeyColumn(number, column_facts(connection, table.oid, number), collation, not_null)


def _same_order(old: TypeFacts, new: TypeFacts) -> bool:
    if old.collation != new.collation:
        return False
    return old.oid == new.oid or any({old.oid, new.oid} <= group for group in _ORDERED_TOGETHER)


def _in_order(connection: Connection, table: Relation, numbers: list[int]) -> bool:
    row = connection.execute(_INDEX_IN_ORDER, {"table": table.oid, "numbers": numbers}).fetchone()
    return bool(row and row[0])


def _unique(connection: Connection, table: Relation, numbers: list[int]) -> bool:
    row = connection.execute(_UNIQUE_INDEX, {"table": table.oid, "numbers": numbers}).fetchone()
    return bool(row and row[0])


def _without_binary_form(
    connection: Connection, table: Relation, mapping: Mapping
) -> frozenset[str]:
    rows = connection.execute(
        _NO_SEND, {"table": table.oid, "names": [column.name for column in mapping.filled]}
    ).fetchall()
    return frozenset(row[0] for row in rows)


# All columns one way, with the NULLs where that way has them, by the types' own operators.
_INDEX_IN_ORDER = """
SELECT EXISTS (
  SELECT FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
  WHERE i.indrelid = %(table)s AND i.indpred IS NULL AND (i.indisvalid OR x.relkind = 'I')
    AND i.indnkeyatts >= cardinality(%(numbers)s::int2[])
    AND (i.indkey::int2[])[0:cardinality(%(numbers)s::int2[]) - 1] = %(numbers)s::int2[]
    AND (SELECT count(DISTINCT o) = 1 AND min(o) IN (0, 3)
         FROM unnest((i.indoption::int2[])[0:cardinality(%(numbers)s::int2[]) - 1]) AS o)
    AND NOT EXISTS (
      SELECT FROM unnest(i.indkey::int2[], i.indcollation::oid[], i.indclass::oid[]) WITH ORDINALITY
                  AS k (number, collation_oid, class, position)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
      JOIN pg_opclass c ON c.oid = k.class
      WHERE position <= cardinality(%(numbers)s::int2[])
        AND (k.collation_oid <> a.attcollation OR NOT c.opcdefault)))
"""

_UNIQUE_INDEX = """
SELECT EXISTS (
  SELECT FROM pg_index i
  JOIN pg_class x ON x.oid = i.indexrelid
  WHERE i.indrelid = %(table)s AND i.indisunique AND i.indimmediate AND i.indpred IS NULL
    AND (i.indisvalid OR x.relkind = 'I')
    AND (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ %(numbers)s::int2[])
"""

_NO_SEND = """
WITH RECURSIVE part AS (
    SELECT a.attname, a.atttypid AS oid FROM pg_attribute a
    WHERE a.attrelid = %(table)s AND a.attname = ANY(%(names)s) AND NOT a.attisdropped
    UNION
    SELECT p.attname, inner_type.oid FROM part p JOIN pg_type t ON t.oid = p.oid
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typelem <> 0 AND t.typsubscript = 'array_subscript_handler'::regproc
        UNION ALL SELECT a.atttypid FROM pg_attribute a
                  WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS inner_type)
SELECT DISTINCT p.attname FROM part p JOIN pg_type t ON t.oid = p.oid WHERE t.typsend = 0
"""
