"""Without wal_level = logical there is no stream of changes."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.postgres.server import provider

NAME = "wal_level"


def find(context: CheckContext) -> Iterator[Finding]:
    (level,) = context.row("SELECT pg_catalog.current_setting('wal_level')")
    if level != "logical":
        who = provider(context.connection)
        yield Finding(NAME, f"wal_level is {level} on this {who.name} server", who.wal_level)
