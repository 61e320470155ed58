"""Only an owner may move a table; and to make the new one equal we must be able to give it away."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "owner"

_OWNERS = """
SELECT (pg_catalog.pg_identify_object(c.tableoid, c.oid, 0)).identity,
       pg_catalog.pg_get_userbyid(c.relowner), current_user
FROM pg_catalog.pg_class c
WHERE c.oid = ANY(%(oids)s) AND NOT (pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')
                                     AND pg_catalog.pg_has_role(current_user, c.relowner, %(may)s))
ORDER BY c.oid
"""
_SCHEMAS = """
SELECT n.nspname, current_user FROM pg_catalog.pg_namespace n
WHERE n.oid IN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = ANY(%(oids)s))
  AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE') ORDER BY n.nspname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    may = "SET" if context.connection.info.server_version >= 160000 else "MEMBER"
    for name, owner, role in context.rows(_OWNERS, oids=context.oids, may=may):
        yield Finding(
            NAME,
            f"{name} belongs to {owner}, and {role} is not a member of that role",
            f"Run as {owner}, or GRANT {owner} TO {role}.",
        )
    for schema, role in context.rows(_SCHEMAS, oids=context.oids):
        yield Finding(
            NAME,
            f"role {role} may not create in schema {schema}, where the new table has to stand",
            f"GRANT CREATE ON SCHEMA {schema} TO {role}.",
        )
