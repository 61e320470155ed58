"""A publication of everything would also publish the shadow table and our own state.

One of the table's schema goes on by itself: the new table comes into the schema when the old one leaves.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.names import STATE_SCHEMA

NAME = "wide_publications"

_ALL = "SELECT pubname FROM pg_catalog.pg_publication WHERE puballtables ORDER BY pubname"
_SCHEMAS = """
SELECT p.pubname, n.nspname
FROM pg_catalog.pg_publication_namespace s
JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
WHERE n.nspname = ANY(%(ours)s)
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
    ours = [STATE_SCHEMA, context.job.shadow_schema, context.job.retired_schema]
    for name, schema in context.rows(_SCHEMAS, ours=ours):
        yield Finding(
            NAME,
            f"publication {name} is FOR TABLES IN SCHEMA {schema}, which is ours",
            "Its subscribers would stop at rows of a table they do not know: "
            f"ALTER PUBLICATION {name} DROP TABLES IN SCHEMA {schema}.",
        )
