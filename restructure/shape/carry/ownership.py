"""Owner and grants: who may do what must be the same after the swap as before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from restructure.errors import SchemaDrift
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script

_OWNER = """
SELECT pg_catalog.pg_get_userbyid(c.relowner), c.relowner = o.relowner,
       pg_catalog.has_schema_privilege(c.relowner, o.relnamespace, 'CREATE')
FROM pg_catalog.pg_class c, pg_catalog.pg_class o WHERE c.oid = %s AND o.oid = %s
"""

_PRIVILEGES: dict[str, LiteralString] = {
    "SELECT": "SELECT",
    "INSERT": "INSERT",
    "UPDATE": "UPDATE",
    "DELETE": "DELETE",
    "TRUNCATE": "TRUNCATE",
    "REFERENCES": "REFERENCES",
    "TRIGGER": "TRIGGER",
    "USAGE": "USAGE",
    "MAINTAIN": "MAINTAIN",  # PostgreSQL 17
}

_TABLE_GRANTS = """
SELECT pg_catalog.pg_get_userbyid(a.grantor),
       CASE a.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
       a.privilege_type, a.is_grantable
FROM pg_catalog.pg_class c, pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault(
       CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) AS a
WHERE c.oid = %s
"""

_COLUMN_GRANTS = """
SELECT c.attname, pg_catalog.pg_get_userbyid(a.grantor),
       CASE a.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
       a.privilege_type, a.is_grantable
FROM pg_catalog.pg_attribute c, pg_catalog.aclexplode(c.attacl) AS a
WHERE c.attrelid = %s AND c.attnum > 0 AND NOT c.attisdropped
"""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One privilege of one role. An empty ``grantee`` is PUBLIC, an empty ``column`` the whole."""

    grantor: str
    grantee: str
    privilege: str
    grantable: bool
    column: str = ""


def carry_owner(script: Script, source: Relation, target: Relation) -> None:
    """Make ``target`` belong to the owner of ``source``; its own sequences follow by themselves.

    The new owner must have CREATE on the target's schema (PostgreSQL docs, sql-altertable).
    """
    owner, same, creates = _ownership(script.connection, source, target)
    if same:
        return
    if not creates:
        script.run(
            sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(
                sql.Identifier(target.schema), sql.Identifier(owner)
            ),
            lock="none",
            why="an owner must be able to create in the schema of its table",
        )
    script.run(
        sql.SQL("ALTER TABLE {} OWNER TO {}").format(target.identifier, sql.Identifier(owner)),
        lock=f"ACCESS EXCLUSIVE on {target}",
        why="same owner as the source",
    )


def carry_grants(
    script: Script,
    source: Relation,
    target: Relation,
    kind: LiteralString,
    columns: dict[str, str],
) -> None:
    """Make the grants on ``target`` equal to those on ``source``: extra ones are revoked.

    ``kind`` is TABLE or SEQUENCE, ``columns`` maps old column to new. Extra ones come from
    ALTER DEFAULT PRIVILEGES. A grant given on by somebody else than the owner is given by
    that role again.
    """
    wanted = list(_grants(script.connection, source, columns))
    surplus = set(_grants(script.connection, target, None)).difference(wanted)
    owner, _, _ = _ownership(script.connection, source, source)
    revoke: LiteralString = "REVOKE {} ON " + kind + " {} FROM {} CASCADE"
    for grant in sorted(surplus):
        _run(script, grant, owner, revoke, target)
    have = set(_grants(script.connection, target, None))  # a revocation may reach further
    for grant in _in_order([grant for grant in wanted if grant not in have], owner):
        give: LiteralString = "GRANT {} ON " + kind + " {} TO {}"
        option: LiteralString = " WITH GRANT OPTION" if grant.grantable else ""
        _run(script, grant, owner, give + option, target)


def _in_order(left: list[Grant], owner: str) -> Iterator[Grant]:
    """Yield each grant after those that allow its grantor to give it, else in the old order."""
    givers = {owner}
    while left:
        ready = [grant for grant in left if grant.grantor in givers] or left
        yield from ready
        givers |= {grant.grantee for grant in ready}
        left = [grant for grant in left if grant not in ready]


def _run(
    script: Script, grant: Grant, owner: str, template: LiteralString, target: Relation
) -> None:
    privilege: sql.Composable = sql.SQL(_PRIVILEGES[grant.privilege])
    if grant.column:
        privilege = sql.SQL("{} ({})").format(privilege, sql.Identifier(grant.column))
    grantee = sql.Identifier(grant.grantee) if grant.grantee else sql.SQL("PUBLIC")
    giver = None if grant.grantor == owner else grant.grantor
    with acting_as(script, giver, target.schema):
        script.run(
            sql.SQL(template).format(privilege, target.identifier, grantee),
            lock="none",
            why="same grants as before",
        )


@contextmanager
def acting_as(script: Script, role: str | None, schema: str) -> Iterator[None]:
    """Give as ``role``: PostgreSQL records as grantor whoever runs the GRANT.

    For this moment it must be able to look into our schema.
    """
    if role is None:
        yield
        return
    ours, them = sql.Identifier(schema), sql.Identifier(role)
    allowed = script.connection.execute(
        "SELECT pg_catalog.has_schema_privilege(%s, %s, 'USAGE'), current_setting('role')",
        [role, schema],
    ).fetchone()
    known, before = allowed or (True, "none")
    why = f"{role} gives its own grants again"
    if not known:
        script.run(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(ours, them), lock="none", why=why
        )
    script.run(sql.SQL("SET LOCAL ROLE {}").format(them), lock="none", why=why)
    yield
    script.connection.execute("SELECT pg_catalog.set_config('role', %s, true)", [before])
    if not known:
        script.run(
            sql.SQL("REVOKE USAGE ON SCHEMA {} FROM {}").format(ours, them), lock="none", why=why
        )


def _ownership(
    connection: Connection, source: Relation, target: Relation
) -> tuple[str, bool, bool]:
    row = connection.execute(_OWNER, [source.oid, target.oid]).fetchone()
    if row is None:
        raise SchemaDrift(f"{source} or {target} is gone", hint="Run the checks again.")
    owner, same, creates = row
    return owner, same, creates


def _grants(
    connection: Connection, relation: Relation, columns: dict[str, str] | None
) -> Iterator[Grant]:
    for grantor, grantee, privilege, grantable in connection.execute(_TABLE_GRANTS, [relation.oid]):
        yield Grant(grantor, grantee or "", privilege, grantable)
    for column, grantor, grantee, privilege, grantable in connection.execute(
        _COLUMN_GRANTS, [relation.oid]
    ):
        name = column if columns is None else columns.get(column)
        if name is not None:
            yield Grant(grantor, grantee or "", privilege, grantable, name)
