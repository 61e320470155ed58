"""Each stream of changes is served by one WAL sender, and making a slot takes one more for a moment."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "free_senders"

_SENDERS = """
SELECT pg_catalog.current_setting('max_wal_senders')::int, count(*),
       coalesce(string_agg(s.application_name, ', ' ORDER BY s.pid), '')
FROM pg_catalog.pg_stat_replication s
"""


def find(context: CheckContext) -> Iterator[Finding]:
    most, used, names = context.row(_SENDERS)
    if used >= most:
        yield Finding(
            NAME,
            f"all {most} WAL senders are in use" + (f": {names}" if names else ""),
            "Raise max_wal_senders and restart the server, or stop a client that streams.",
        )
    elif used == most - 1 and context.way_back_wanted:
        yield Finding(
            NAME,
            "only one WAL sender is free",
            "The cutover takes a second one for a moment, to make the slot of the way back: raise "
            "max_wal_senders and restart, or set cutover.revert_window: 0 and have no way back.",
            refuses=False,
        )
