"""How far a new sequence may count: as far as its column's type, where the old one could.

CREATE TABLE … (LIKE … INCLUDING IDENTITY) makes every sequence a bigint one and writes the old
type's limits into it, so an int column made bigint would still stop at 2147483647.
"""

from __future__ import annotations

from psycopg import sql

from restructure.postgres.script import Script
from restructure.shape.carry.sequences import OwnedSequence

_READ = """
SELECT s.seqtypid::int8, s.seqincrement > 0, s.seqmin, s.seqmax,
       (SELECT a.atttypid::int8 FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = s.seqrelid
          AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.deptype IN ('a', 'i'))
FROM pg_catalog.pg_sequence s WHERE s.seqrelid = %s
"""

_BITS = {20: 63, 21: 15, 23: 31}  # int8, int2, int4 by their fixed OIDs (pg_type.dat)
_NAMES = {20: "int8", 21: "int2", 23: "int4"}


def carry_limits(script: Script, giver: OwnedSequence, taker: OwnedSequence) -> None:
    """Give ``taker`` its column's type, and that type's limits where ``giver`` had its own's."""
    old = script.connection.execute(_READ, [giver.relation.oid]).fetchone()
    new = script.connection.execute(_READ, [taker.relation.oid]).fetchone()
    if old is None or new is None or new[4] not in _BITS:
        return
    old_type, _, old_low, old_high, _ = old
    new_type, upward, low, high, column_type = new
    clauses: list[sql.Composable] = []
    if new_type != column_type:
        clauses.append(sql.SQL("AS {}").format(sql.Identifier("pg_catalog", _NAMES[column_type])))
    natural_low, natural_high = _natural(column_type, upward)
    if (old_low, old_high) == _natural(old_type, upward):
        if high == old_high != natural_high:
            clauses.append(sql.SQL("NO MAXVALUE"))
        if low == old_low != natural_low:
            clauses.append(sql.SQL("NO MINVALUE"))
    if clauses:
        script.run(
            sql.SQL("ALTER SEQUENCE {} {}").format(
                taker.relation.identifier, sql.SQL(" ").join(clauses)
            ),
            lock=f"SHARE ROW EXCLUSIVE on {taker.relation}",
            why="the sequence may count as far as its column",
        )


def _natural(type_oid: int, upward: bool) -> tuple[int, int]:
    """Limits of a sequence that was made without any (PostgreSQL docs, sql-createsequence)."""
    bits = _BITS[type_oid]
    return (1, 2**bits - 1) if upward else (-(2**bits), -1)
