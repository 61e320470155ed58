"""What a subscription writes has an origin, which some filters hide."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "subscriptions"

_ENABLED = """
SELECT s.subname FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database() AND s.subenabled ORDER BY s.subname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for (name,) in context.rows(_ENABLED):
        yield Finding(
            NAME,
            f"subscription {name} writes into this database",
            "Its changes are followed like all others; make sure that nobody sets up the "
            "stream with origin = none.",
            refuses=False,
        )
