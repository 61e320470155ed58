"""Who stands in the way can only be told by a role that sees the others."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "activity"


def find(context: CheckContext) -> Iterator[Finding]:
    role, sees = context.row(
        "SELECT current_user, pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
    )
    if not sees:
        yield Finding(
            NAME,
            f"role {role} does not see what other roles' sessions do",
            f"GRANT pg_monitor TO {role}, so that old transactions and blockers can be named.",
            refuses=False,
        )
