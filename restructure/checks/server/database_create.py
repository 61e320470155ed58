"""Publications and schemas are made with CREATE on the database."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "database_create"

_MAY = """
SELECT current_user, current_database(),
       pg_catalog.has_database_privilege(current_database(), 'CREATE')
"""


def find(context: CheckContext) -> Iterator[Finding]:
    role, database, may = context.row(_MAY)
    if not may:
        yield Finding(
            NAME,
            f"role {role} may not create in database {database}",
            f"As its owner: GRANT CREATE ON DATABASE {database} TO {role}.",
        )
