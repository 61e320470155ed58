"""Our stream takes one replication slot, and the one for going back a second."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "free_slots"

_SLOTS = """
SELECT pg_catalog.current_setting('max_replication_slots')::int, count(*)
FROM pg_catalog.pg_replication_slots WHERE slot_name <> ALL(%(ours)s)
"""


def find(context: CheckContext) -> Iterator[Finding]:
    names = context.names
    ours = [names.slot, names.other.slot] if names else []
    most, used = context.row(_SLOTS, ours=ours)
    if used >= most:
        users = [name for (name,) in context.rows(_NAMES)]
        yield Finding(
            NAME,
            f"all {most} replication slots are in use: {', '.join(users)}",
            "Raise max_replication_slots and restart, or drop a slot that nobody needs "
            "(SELECT pg_drop_replication_slot(…)).",
        )
    elif used == most - 1 and context.way_back_wanted:
        yield Finding(
            NAME,
            "only one replication slot is free",
            "The cutover takes a second one, for the way back: raise max_replication_slots and "
            "restart, or set cutover.revert_window: 0 and have no way back.",
            refuses=False,
        )


_NAMES = """
SELECT slot_name || CASE WHEN active THEN '' ELSE ' (unused)' END
FROM pg_catalog.pg_replication_slots ORDER BY active, slot_name
"""
