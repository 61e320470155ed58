"""What moves into one schema at the swap must not meet a name that is taken there."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "swap_names"

_TWICE = """
SELECT c.relname, string_agg(c.relnamespace::regnamespace::text, ', ' ORDER BY c.relnamespace)
FROM pg_catalog.pg_class c
WHERE c.oid = ANY(%(oids)s)
   OR c.oid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = ANY(%(oids)s))
GROUP BY c.relname HAVING count(*) > 1 ORDER BY c.relname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for name, schemas in context.rows(_TWICE, oids=context.oids):
        yield Finding(
            NAME,
            f"{context.table.relation} has partitions or indexes called {name} in several schemas: "
            f"{schemas}",
            "They retire into one schema: rename all but one.",
        )
