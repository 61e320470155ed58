"""Defaults and generated columns of other tables that use the table or its identity's sequence."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "default")


KIND = Kind(
    "default",
    find,
    hint="Drop the default for the time of the job.",
)
