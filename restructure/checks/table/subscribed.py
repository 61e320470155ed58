"""A subscription writes by name but keeps its state by OID: after the swap it would skip rows."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "subscribed"

_SUBSCRIBED = """
SELECT DISTINCT s.subname,
       (pg_catalog.pg_identify_object('pg_class'::regclass, r.srrelid, 0)).identity
FROM pg_catalog.pg_subscription_rel r JOIN pg_catalog.pg_subscription s ON s.oid = r.srsubid
WHERE r.srrelid = ANY(%(oids)s) ORDER BY 1, 2
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for name, table in context.rows(_SUBSCRIBED, oids=context.oids):
        yield Finding(
            NAME,
            f"subscription {name} writes into {table}",
            f"It would not know the new table: take {table} out of its publication first "
            f"(and ALTER SUBSCRIPTION {name} REFRESH PUBLICATION).",
        )
