"""Whether a column of the shadow holds a key of the source, and other questions about columns."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.casts import TypeFacts, column_facts, keeps_identity
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


_DOMAIN = """
WITH RECURSIVE base AS (
    SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = %(oid)s
    UNION ALL
    SELECT t.* FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
SELECT coalesce(bool_or(typnotnull), false), coalesce(bool_or(typdefault IS NOT NULL), false)
FROM base
"""
