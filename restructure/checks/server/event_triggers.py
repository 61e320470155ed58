"""Event triggers fire for our DDL as for everybody's."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "event_triggers"

_ENABLED = """
SELECT evtname, evtevent FROM pg_catalog.pg_event_trigger
WHERE evtenabled IN ('O', 'A') ORDER BY evtname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for name, event in context.rows(_ENABLED):
        yield Finding(
            NAME,
            f"event trigger {name} ({event}) will fire for the job's own DDL",
            "Make sure that it lets new schemas, tables and ALTER TABLE … SET SCHEMA pass, "
            "also inside the short swap transaction.",
            refuses=False,
        )
