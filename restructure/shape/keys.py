"""Whether a column of the shadow holds a key of the source, and other questions about columns."""

from __future__ import annotations

from psycopg import errors, sql

from restructure.postgres.connect import Connection
from restructure.postgres.script import raw
from restructure.shape.casts import (
    TypeFacts,
    base_type_sql,
    column_facts,
    keeps_identity,
    type_facts,
)
from restructure.shape.table import Column

Attribute = tuple[int, int]
"""A table's OID and an attribute number."""


def holds(
    connection: Connection, old: Attribute, between: TypeFacts | None, new: Attribute
) -> bool:
    """Whether ``new`` holds ``old``'s values one for one, by way of an expression's own type."""
    source, target = column_facts(connection, *old), column_facts(connection, *new)
    between = between or source
    return keeps_identity(source, between) and keeps_identity(between, target)


def described(column: Column, other: Column) -> str:
    """A column's type, with its collation where that is what differs from ``other``'s."""
    if column.collation_sql in (None, other.collation_sql):
        return column.type_sql
    return f"{column.type_sql} COLLATE {column.collation_sql}"


def takes_no_null(connection: Connection, type_oid: int, not_null: bool) -> bool:
    """Whether a column of this type must be given a value, its domain having no default."""
    row = connection.execute(_DOMAIN, {"oid": type_oid}).fetchone()
    domain_not_null, domain_default = row or (False, False)
    return (not_null or domain_not_null) and not domain_default


def equality(connection: Connection, type_oid: int) -> str:
    """The operator by which the type's own index order takes two values for the same.

    A plain ``=`` is looked up by search_path: where citext lives in a schema outside of it, that finds
    text's, which tells the same keys apart and uses no index. Types of PostgreSQL's own need no schema.
    """
    base = type_facts(connection, type_oid, -1, 0).oid
    row = connection.execute(_EQUALITY, [base]).fetchone()
    return "=" if row is None else str(row[0])


def can_be_hashed(connection: Connection, type_oid: int) -> bool:
    """Whether hash_record_extended knows the type; varbit, money and tsvector it does not."""
    probe = "SELECT hash_record_extended(ROW(NULL::{}), 0)"
    try:
        with connection.transaction():
            connection.execute(sql.SQL(probe).format(raw(base_type_sql(connection, type_oid))), {})
    except errors.UndefinedFunction:
        return False
    return True


_EQUALITY = """
SELECT pg_catalog.format('OPERATOR(%%I.%%s)', n.nspname, o.oprname)
FROM pg_catalog.pg_opclass c
JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
JOIN pg_catalog.pg_amop a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
  AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype
JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace AND n.nspname <> 'pg_catalog'
WHERE c.opcdefault AND c.opcintype = %s::oid
"""

_DOMAIN = """
WITH RECURSIVE base AS (
    SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = %(oid)s
    UNION ALL
    SELECT t.* FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
SELECT coalesce(bool_or(typnotnull), false), coalesce(bool_or(typdefault IS NOT NULL), false)
FROM base
"""
