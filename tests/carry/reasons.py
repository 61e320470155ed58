"""What the rehearsal says about a plan, as ``check`` does."""

from __future__ import annotations

import psycopg

from restructure.postgres.script import Script
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry.build import NAMES
from tests.shape_workbench import plan


def reasons(
    connection: psycopg.Connection, table: str, *clauses: str, create: str | None = None
) -> list[str]:
    """Build the shadow, rehearse and roll back; nothing is left."""
    sections = {"create": create} if create else {"alter": list(clauses)}
    source = read_table(connection, table)
    with connection.transaction(force_rollback=True):
        shadow = build_shadow(Script(connection), source, plan(table, **sections), NAMES)
        return [reason for _, reason in rehearse(connection, source, shadow, NAMES)]
