"""PostgreSQL 15 is the oldest that has column lists in publications and MERGE."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "version"
OLDEST, NEWEST = 15, 18
_SLOT_START = {15: 8, 16: 4}
"""Fixed in July 2024: a new slot could begin in the middle of a transaction (bb19b70081)."""
_PUBLICATION_CHANGE = {15: 13, 16: 9, 17: 5}
"""Before these, changes in progress during ALTER PUBLICATION could be lost."""


def find(context: CheckContext) -> Iterator[Finding]:
    yield from judge(context.connection.info.server_version)


def judge(version: int) -> Iterator[Finding]:
    """``version`` as server_version_num gives it, such as 150018."""
    major, minor = divmod(version, 10000)
    if major < OLDEST:
        yield Finding(
            NAME,
            f"the server is PostgreSQL {major}, the oldest that works is {OLDEST}",
            f"Upgrade the server to {OLDEST} or later.",
        )
    elif major > NEWEST:
        yield Finding(
            NAME,
            f"the server is PostgreSQL {major}, this tool was tested up to {NEWEST}",
            "Try it on a copy first.",
            refuses=False,
        )
    for fixed, why in (
        (_SLOT_START, "a new slot can miss the beginning of a running transaction"),
        (_PUBLICATION_CHANGE, "changes can be lost while a publication is altered"),
    ):
        if minor < fixed.get(major, 0):
            yield Finding(
                NAME,
                f"PostgreSQL {major}.{minor} has a known fault: {why}",
                f"Upgrade to {major}.{fixed[major]} or later.",
                refuses=False,
            )
