"""Foreign keys of the table that point to itself."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "self-reference")


KIND = Kind(
    "self-reference",
    find,
    hint="Drop it and add it again afterwards.",
)
