"""What a column's length or precision refuses: an assignment raises where an explicit cast cuts."""

from __future__ import annotations

from psycopg import sql

from restructure.postgres.connect import Connection
from restructure.shape.casts import BPCHAR, NUMERIC, VARCHAR, TypeFacts

_BIT, _VARBIT = 1560, 1562
_HEADER = 4
"""Added to a length in a type modifier (VARHDRSZ in PostgreSQL's c.h)."""


def excess(connection: Connection, value: sql.Composable, facts: TypeFacts) -> sql.Composed | None:
    """A condition that is true where ``value``, of the base type, does not fit; None: all fit.

    As varchar(), bpchar(), bit(), varbit() and numeric() of PostgreSQL judge an assignment: blanks
    past the end are no excess, an infinity fits no precision.
    """
    if facts.modifier < 0:
        return None
    simple = _simple(value, facts.oid, facts.modifier)
    if simple is not None:
        return simple
    row = connection.execute(
        "SELECT typelem::int8 FROM pg_catalog.pg_type WHERE oid = %s AND typsubscript ="
        " 'pg_catalog.array_subscript_handler'::pg_catalog.regproc",
        [facts.oid],
    ).fetchone()
    element = None if row is None else _simple(sql.SQL("e.e"), row[0], facts.modifier)
    if element is None:
        return None
    return sql.SQL("EXISTS (SELECT FROM unnest({}) AS e (e) WHERE {})").format(value, element)


def _simple(value: sql.Composable, oid: int, modifier: int) -> sql.Composed | None:
    if oid in (VARCHAR, BPCHAR):
        form = "char_length(rtrim({}::text, ' ')) > {}"
        return sql.SQL(form).format(value, sql.Literal(modifier - _HEADER))
    if oid == _BIT:
        return sql.SQL("length({}) <> {}").format(value, sql.Literal(modifier))
    if oid == _VARBIT:
        return sql.SQL("length({}) > {}").format(value, sql.Literal(modifier))
    if oid == NUMERIC:
        digits = (modifier - _HEADER) >> 16 & 0xFFFF
        scale = (((modifier - _HEADER) & 0x7FF) ^ 1024) - 1024  # numeric_typmod_scale in numeric.c
        form = "({0} <> 'NaN'::numeric AND abs(round({0}, {1})) >= {2}::numeric)"
        limit = sql.Literal(f"1e{digits - scale}")
        return sql.SQL(form).format(value, sql.Literal(scale), limit)
    return None
