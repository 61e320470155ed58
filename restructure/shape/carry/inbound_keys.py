"""Foreign keys of other tables that point to this one."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "inbound foreign key")


KIND = Kind(
    "inbound foreign key",
    find,
    hint="Drop it and add it again afterwards.",
)
