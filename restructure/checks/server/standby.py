"""The swap happens on the primary."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "standby"


def find(context: CheckContext) -> Iterator[Finding]:
    if context.row("SELECT pg_catalog.pg_is_in_recovery()") == (True,):
        yield Finding(
            NAME,
            "this server is a standby",
            "Connect to the primary; with several hosts in the DSN add "
            "target_session_attrs=read-write.",
        )
