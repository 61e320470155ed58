"""Defaults and generated columns of other tables that use the table or its identity's sequence."""

from __future__ import annotations

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them. Not carried yet."""
    return dependents(connection, table, "default")
