"""Rules on the table, and rules elsewhere whose action uses it."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "rule")


KIND = Kind(
    "rule",
    find,
    hint="Drop it and create it again afterwards.",
)
