"""PostgreSQL 18 can drop slots that nobody reads for a while."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "idle_slots"


def find(context: CheckContext) -> Iterator[Finding]:
    for (timeout,) in context.rows(
        "SELECT pg_catalog.current_setting(name) FROM pg_catalog.pg_settings"
        " WHERE name = 'idle_replication_slot_timeout' AND setting <> '0'"
    ):
        yield Finding(
            NAME,
            f"idle_replication_slot_timeout is {timeout}: a job that rests longer loses its slot",
            "Set it to 0 for the time of the job, or never leave a job unattended that long.",
            refuses=False,
        )
