"""Our sessions must find room beside the application's."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "connections"
BESIDE_COPY = 8
"""Sessions besides the copy's workers: state, stream, spool, appliers, cutover, fence, watch."""

_ROOM = """
SELECT least(
    current_setting('max_connections')::int - CASE WHEN r.rolsuper THEN 0
        ELSE current_setting('superuser_reserved_connections')::int
             + coalesce(current_setting('reserved_connections', true)::int, 0) END
        - (SELECT count(*) FROM pg_catalog.pg_stat_get_activity(NULL) a WHERE a.datid <> 0),
    CASE WHEN d.datconnlimit < 0 THEN NULL ELSE d.datconnlimit
        - (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid) END,
    CASE WHEN r.rolconnlimit < 0 THEN NULL ELSE r.rolconnlimit
        - (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid) END)
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
WHERE r.rolname = current_user AND d.datname = current_database()
"""


def find(context: CheckContext) -> Iterator[Finding]:
    (room,) = context.row(_ROOM)
    needed = BESIDE_COPY + (context.plan.copy_.workers if context.plan else 2)
    if room < needed:
        yield Finding(
            NAME,
            f"only {max(room, 0)} more connections are possible, {needed} are needed",
            "Raise max_connections or the limit of the role or the database, close idle sessions, "
            "or lower copy.workers in the plan.",
        )
