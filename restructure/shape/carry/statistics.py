"""Extended statistics (CREATE STATISTICS)."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "extended statistics")


KIND = Kind(
    "extended statistics",
    find,
    hint="Drop them and create them again afterwards.",
)
