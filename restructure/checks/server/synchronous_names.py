"""If the server took our WAL sender for a synchronous standby, commits would wait for us."""

from __future__ import annotations

import re
from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.postgres.connect import APPLICATION

NAME = "synchronous_names"

_TOKEN = re.compile(r'"((?:[^"]|"")*)"|([^\s,()"]+)')


def find(context: CheckContext) -> Iterator[Finding]:
    (setting,) = context.row("SELECT pg_catalog.current_setting('synchronous_standby_names')")
    ours = [name for name in standby_names(setting) if _matches_us(name)]
    if ours:
        yield Finding(
            NAME,
            f"synchronous_standby_names = {setting!r} would make our stream a synchronous standby",
            f"Name the standbys one by one instead of {ours[0]!r}, with names that do not begin "
            f"with {APPLICATION!r}.",
        )


def standby_names(setting: str) -> list[str]:
    """The names in the setting, of each of its forms: a list, FIRST n (…), ANY n (…), n (…)."""
    tokens = [
        (quoted.replace('""', '"'), plain) for quoted, plain in _TOKEN.findall(setting.strip())
    ]
    body = tokens
    if "(" in _TOKEN.sub(lambda found: "" if found[1] is not None else found[0], setting):
        words = [plain.upper() for _, plain in tokens]
        body = tokens[2 if words[:1] in (["FIRST"], ["ANY"]) else 1 :]
    return [quoted or plain for quoted, plain in body]


def _matches_us(name: str) -> bool:
    """The server compares without regard to case (syncrep.c, SyncRepGetStandbyPriority)."""
    return name == "*" or name.lower().startswith(APPLICATION.lower())
