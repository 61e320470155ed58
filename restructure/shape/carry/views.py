"""Views: their query is bound to the table by OID."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "view")


KIND = Kind(
    "view",
    find,
    hint="Drop it and create it again afterwards.",
)
