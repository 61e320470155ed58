"""The copy goes by block and row number, whose meaning other access methods do not promise."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "access_method"

_METHODS = """
SELECT (pg_catalog.pg_identify_object(c.tableoid, c.oid, 0)).identity, m.amname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am m ON m.oid = c.relam
WHERE c.oid = ANY(%(oids)s) AND c.relkind = 'r' AND m.amname <> 'heap' ORDER BY c.oid
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for name, method in context.rows(_METHODS, oids=context.oids):
        yield Finding(
            NAME,
            f"{name} uses the access method {method}",
            "Only heap tables can be copied by block.",
        )
