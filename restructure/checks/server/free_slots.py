"""Our stream takes one replication slot, and the one for going back a second."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "free_slots"

_SLOTS = """
SELECT pg_catalog.current_setting('max_replication_slots')::int, count(*)
FROM pg_catalog.pg_replication_slots WHERE slot_name <> %(ours)s
"""


def find(context: CheckContext) -> Iterator[Finding]:
    ours = context.names.slot if context.names else ""
    most, used = context.row(_SLOTS, ours=ours)
    if used >= most:
        names = [name for (name,) in context.rows(_NAMES)]
        yield Finding(
            NAME,
            f"all {most} replication slots are in use: {', '.join(names)}",
            "Raise max_replication_slots and restart, or drop a slot that nobody needs "
            "(SELECT pg_drop_replication_slot(…)).",
        )
    elif used == most - 1:
        yield Finding(
            NAME,
            "only one replication slot is free",
            "Going back after the cutover takes a second one: raise max_replication_slots.",
            refuses=False,
        )


_NAMES = """
SELECT slot_name || CASE WHEN active THEN '' ELSE ' (unused)' END
FROM pg_catalog.pg_replication_slots ORDER BY active, slot_name
"""
