"""Who reads the table through a publication gets its new shape after the swap."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.postgres.publication import is_ours

NAME = "subscribed_publications"

_PUBLISHED = """
SELECT p.pubname::text FROM pg_catalog.pg_publication p
WHERE EXISTS (SELECT FROM pg_catalog.pg_publication_rel r
              WHERE r.prpubid = p.oid AND r.prrelid = ANY(%(oids)s::oid[]))
   OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s
              JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid
              WHERE s.pnpubid = p.oid AND c.oid = ANY(%(oids)s::oid[]))
ORDER BY 1
"""
# a job's slot is called as its publication (Names)
_SLOTS = """
SELECT slot_name || CASE WHEN active THEN '' ELSE ' (nobody reads it now)' END
FROM pg_catalog.pg_replication_slots
WHERE database = current_database() AND plugin = 'pgoutput' AND NOT temporary
  AND slot_name <> ALL(%(ours)s::name[])
ORDER BY slot_name
"""


def find(context: CheckContext) -> Iterator[Finding]:
    names = [name for (name,) in context.rows(_PUBLISHED, oids=context.oids)]
    ours = [name for name in names if is_ours(context.connection, name)]
    slots = [slot for (slot,) in context.rows(_SLOTS, ours=[*ours, context.job.publication])]
    published = [name for name in names if name not in ours]
    if published and slots:
        yield Finding(
            NAME,
            f"{context.table.relation} is published by {', '.join(published)}, and this database "
            f"has the slots {', '.join(slots)}",
            "Whoever reads them gets rows of the new shape after the swap: make the change there "
            "first, so that both shapes fit.",
            refuses=False,
        )
