"""Memberships in other publications: FOR TABLE follows the OID, so the old table."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table

_FIND = """
SELECT DISTINCT p.pubname FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = ANY(%s::oid[]) ORDER BY p.pubname
"""


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    return [Dependent("publication", name) for (name,) in connection.execute(_FIND, [tree])]


KIND = Kind(
    "publication",
    find,
    hint="Take the table out of it, and put it in again afterwards.",
)
