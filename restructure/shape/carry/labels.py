"""Security labels (SECURITY LABEL) of the table and its columns."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table

_FIND = """
SELECT DISTINCT (pg_catalog.pg_identify_object(classoid, objoid, 0)).identity
                || ' (' || provider || ')'
FROM pg_catalog.pg_seclabel
WHERE classoid = 'pg_catalog.pg_class'::regclass AND objoid = ANY(%s::oid[]) ORDER BY 1
"""


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    return [Dependent("security label", name) for (name,) in connection.execute(_FIND, [tree])]


KIND = Kind(
    "security label",
    find,
    hint="Remove it (IS NULL) and set it again afterwards.",
)
