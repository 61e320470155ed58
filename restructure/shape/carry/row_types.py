"""Tables, composite types and domains that are made of the table's row type."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "row type")


KIND = Kind(
    "row type",
    find,
    hint="Use a type of its own instead of the table's row type.",
)
