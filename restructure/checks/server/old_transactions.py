"""A slot is only ready when every transaction that was running has ended, in any database."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "old_transactions"
OLD = 60
"""Seconds."""

_OLD = """
SELECT pid, coalesce(usename, '?'), coalesce(datname, '?'), coalesce(application_name, ''),
       coalesce(state, ''), extract(epoch FROM clock_timestamp() - xact_start)::int
FROM pg_catalog.pg_stat_activity
WHERE (backend_xid IS NOT NULL OR datname = current_database())
  AND backend_type IN ('client backend', 'background worker')
  AND pid <> pg_catalog.pg_backend_pid()
  AND xact_start < clock_timestamp() - make_interval(secs => %(old)s)
ORDER BY xact_start
"""


def find(context: CheckContext) -> Iterator[Finding]:
    yield from older_than(context, OLD)


def older_than(context: CheckContext, seconds: int) -> Iterator[Finding]:
    """One warning for each transaction that has been open longer."""
    for pid, user, database, application, state, age in context.rows(_OLD, old=seconds):
        yield Finding(
            NAME,
            f"pid {pid} ({user}, {application or 'no application name'}, database {database}) "
            f"is {state} in a transaction that is {age} s old",
            "The slot waits for it, and so does the cutover: let it end, or "
            f"SELECT pg_terminate_backend({pid}).",
            refuses=False,
        )
