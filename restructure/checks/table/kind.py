"""Only permanent tables, plain or partitioned, can be given a new shape."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "kind"

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a composite type",
    "i": "an index",
    "I": "an index",
    "t": "a TOAST table",
}
_PERSISTENCE = {
    "t": ("a temporary table", "Only its own session can see it."),
    "u": (
        "an unlogged table",
        "It writes no WAL, so nothing can be followed: ALTER TABLE … SET LOGGED first.",
    ),
}
_FACTS = """
SELECT relkind::text, relpersistence::text FROM pg_catalog.pg_class WHERE oid = %(oid)s
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for relation in context.tree:
        for kind, persistence in context.rows(_FACTS, oid=relation.oid):
            if kind not in ("r", "p"):
                yield Finding(
                    NAME,
                    f"{relation} is {_KINDS.get(kind, 'no table')}",
                    "Name a plain or partitioned table of this database.",
                )
            elif persistence in _PERSISTENCE:
                what, hint = _PERSISTENCE[persistence]
                yield Finding(NAME, f"{relation} is {what}", hint)
