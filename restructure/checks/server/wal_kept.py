"""A limit on what slots may keep can cost us the slot."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "wal_kept"
LEAST = 1 << 30
"""Bytes. With less, one long transaction elsewhere is enough to lose the slot."""

_LIMIT = """
SELECT setting::bigint * 1024 * 1024, pg_catalog.pg_size_pretty(setting::bigint * 1024 * 1024)
FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'
"""


def find(context: CheckContext) -> Iterator[Finding]:
    limit, pretty = context.row(_LIMIT)
    if 0 <= limit < LEAST:
        yield Finding(
            NAME,
            f"max_slot_wal_keep_size is {pretty}: past it the server drops our slot",
            "Raise it to several GB for the time of the job, or the job may have to start over.",
            refuses=False,
        )
