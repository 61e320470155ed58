"""Which casts keep a key a key."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.postgres.connect import Connection

BOOL, BYTEA, NAME, INT8, INT2, INT4, TEXT, OID = 16, 17, 19, 20, 21, 23, 25, 26
FLOAT4, FLOAT8, BPCHAR, VARCHAR, DATE, TIME = 700, 701, 1042, 1043, 1082, 1083
TIMESTAMP, TIMESTAMPTZ, TIMETZ, NUMERIC, UUID = 1114, 1184, 1266, 1700, 2950
"""OIDs of built-in types; they never change (PostgreSQL, pg_type.dat)."""

_STRINGS = (TEXT, VARCHAR)
_EXACT: dict[int, tuple[int, ...]] = {
    BOOL: _STRINGS,
    INT2: (INT4, INT8, FLOAT4, FLOAT8, *_STRINGS),
    INT4: (INT8, FLOAT8, *_STRINGS),
    INT8: _STRINGS,
    OID: (INT8, *_STRINGS),
    FLOAT4: (FLOAT8,),
    DATE: (TIMESTAMP,),
    UUID: _STRINGS,
    NAME: _STRINGS,
    TEXT: (VARCHAR,),
    VARCHAR: (TEXT,),
    # text(bpchar) strips the padding, and trailing blanks count for nothing in a char(n)
    BPCHAR: _STRINGS,
}
"""Casts that keep different values different *and* equal values equal.

The second half matters as much: numeric 1.0 and 1.00 are one key, as text they are two, and a
change seen under one would leave the other behind. So no float or numeric to text; no text
form of a date or timestamp, which depends on settings; no timestamp to timestamptz, which
maps two times to one where clocks go back.
"""


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """A type with its modifier, domains resolved. ``collation`` is 0 where there is none."""

    oid: int
    modifier: int
    name: str
    enum: bool
    collation: int
    deterministic: bool


_FACTS = """
WITH RECURSIVE base AS (
    SELECT %(oid)s::oid AS oid, %(modifier)s::int AS modifier, 0 AS depth
    UNION ALL
    SELECT t.typbasetype, CASE WHEN b.modifier <> -1 THEN b.modifier ELSE t.typtypmod END, depth + 1
    FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
SELECT b.oid::int8, b.modifier, pg_catalog.format_type(%(oid)s::oid, %(modifier)s::int),
       t.typtype = 'e', %(collation)s::int8,
       coalesce((SELECT c.collisdeterministic FROM pg_catalog.pg_collation c
                 WHERE c.oid = %(collation)s::oid), true)
FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.oid ORDER BY b.depth DESC LIMIT 1
"""


def type_facts(connection: Connection, oid: int, modifier: int, collation: int) -> TypeFacts:
    """Look a type up, down to what its domains are made of."""
    row = connection.execute(
        _FACTS, {"oid": oid, "modifier": modifier, "collation": collation}
    ).fetchone()
    assert row is not None
    return TypeFacts(*row)


def column_facts(connection: Connection, table: int, number: int) -> TypeFacts:
    """The same for a column."""
    row = connection.execute(
        "SELECT atttypid::int8, atttypmod, attcollation::int8 FROM pg_catalog.pg_attribute"
        " WHERE attrelid = %s AND attnum = %s",
        [table, number],
    ).fetchone()
    assert row is not None
    return type_facts(connection, *row)


def base_type_sql(connection: Connection, oid: int) -> str:
    """A type to CAST to without losing anything: domains resolved, and no length.

    An explicit cast to varchar(3) or bit(3) cuts silently; the assignment that follows it
    raises an error instead. Typmod -1 makes format_type print bpchar and "bit", which
    have no length, where NULL would print character and bit, which have one of 1.
    """
    facts = type_facts(connection, oid, -1, 0)
    row = connection.execute(
        "SELECT CASE WHEN n.nspname = 'pg_catalog' THEN pg_catalog.format_type(t.oid, -1)"
        " ELSE quote_ident(n.nspname) || '.' || quote_ident(t.typname) END"
        " FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace"
        " WHERE t.oid = %s",
        [facts.oid],
    ).fetchone()
    assert row is not None
    return str(row[0])


def keeps_identity(old: TypeFacts, new: TypeFacts) -> bool:
    """Whether a cast from ``old`` to ``new`` maps keys one to one, whatever the settings."""
    if not _same_equality(old, new):
        return False
    if old.oid == new.oid:
        return _modifier_keeps(old, new)
    if new.oid == NUMERIC:
        whole = new.modifier == -1 or _scale(new.modifier) >= 0
        return old.oid in (INT2, INT4, INT8) and whole
    if new.oid not in (_STRINGS if old.enum else _EXACT.get(old.oid, ())):
        return False
    if new.oid == TIMESTAMP or new.modifier == -1:
        return True  # a date has no fraction to lose
    return old.oid in (VARCHAR, BPCHAR) and 0 <= old.modifier <= new.modifier


def _same_equality(old: TypeFacts, new: TypeFacts) -> bool:
    """Deterministic collations all agree on what is equal: the same bytes."""
    return old.collation == new.collation or (old.deterministic and new.deterministic)


def _modifier_keeps(old: TypeFacts, new: TypeFacts) -> bool:
    if new.modifier in (-1, old.modifier):
        return True
    if old.oid in (VARCHAR, BPCHAR):
        return 0 <= old.modifier <= new.modifier
    if old.oid == NUMERIC:  # too many digits before the point are an error, not a loss
        return old.modifier != -1 and _scale(new.modifier) >= _scale(old.modifier)
    if old.oid in (TIME, TIMETZ, TIMESTAMP, TIMESTAMPTZ):
        return 0 <= old.modifier <= new.modifier or new.modifier >= 6
    return False


def _scale(modifier: int) -> int:
    """Digits behind the point; negative since PostgreSQL 15 (numeric_typmod_scale in numeric.c)."""
    return (((modifier - 4) & 0x7FF) ^ 1024) - 1024
