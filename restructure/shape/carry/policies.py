"""Row-level policies of the table, and policies elsewhere whose expression reads it."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "policy")


KIND = Kind(
    "policy",
    find,
    hint="Drop it and create it again afterwards.",
)
