"""Row-level security that applies to our own role would hide rows from the copy."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "filtered_rows"

_ACTIVE = """
SELECT (pg_catalog.pg_identify_object(tableoid, oid, 0)).identity, current_user, relforcerowsecurity
FROM pg_catalog.pg_class
WHERE oid = ANY(%(oids)s) AND pg_catalog.row_security_active(oid) ORDER BY oid
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for name, role, forced in context.rows(_ACTIVE, oids=context.oids):
        yield Finding(
            NAME,
            f"row-level security of {name} hides rows from {role}"
            + (" (FORCE ROW LEVEL SECURITY)" if forced else ""),
            f"As a superuser: ALTER ROLE {role} BYPASSRLS.",
        )
