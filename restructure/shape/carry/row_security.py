"""ROW LEVEL SECURITY switched on, with or without a policy."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table

_FIND = """
SELECT (pg_catalog.pg_identify_object(tableoid, oid, 0)).identity
       || CASE WHEN relforcerowsecurity THEN ' (FORCE)' ELSE '' END
FROM pg_catalog.pg_class
WHERE oid = ANY(%s::oid[]) AND (relrowsecurity OR relforcerowsecurity) ORDER BY oid
"""


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    return [Dependent("row security", name) for (name,) in connection.execute(_FIND, [tree])]


KIND = Kind(
    "row security",
    find,
    hint="ALTER TABLE … DISABLE ROW LEVEL SECURITY first.",
)
