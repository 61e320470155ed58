"""A publication of everything would also publish the shadow table and our own state."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "wide_publications"

_ALL = "SELECT pubname FROM pg_catalog.pg_publication WHERE puballtables ORDER BY pubname"
_SCHEMAS = """
SELECT p.pubname, n.nspname
FROM pg_catalog.pg_publication_namespace s
JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
WHERE n.nspname = ANY(%(ours)s)
   OR n.oid IN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = ANY(%(oids)s))
ORDER BY p.pubname, n.nspname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for (name,) in context.rows(_ALL):
        yield Finding(
            NAME,
            f"publication {name} is FOR ALL TABLES, so it would publish the shadow table too",
            "Its subscribers would stop at rows of a table they do not know: publish tables by "
            f"name instead of {name}.",
        )
    ours = ["restructure", context.job.shadow_schema, context.job.retired_schema]
    for name, schema in context.rows(_SCHEMAS, ours=ours, oids=context.oids):
        yield Finding(
            NAME,
            f"publication {name} is FOR TABLES IN SCHEMA {schema}, so after the swap it would "
            "publish the new shape",
            f"Publish tables by name instead: ALTER PUBLICATION {name} DROP TABLES IN SCHEMA "
            f"{schema}, then ADD TABLE ….",
        )
