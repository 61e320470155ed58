"""Owner and grants of a function or procedure that was made anew."""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.carry.closure import Reader
from restructure.shape.carry.ownership import acting_as
from restructure.shape.carry.recipe import signature

Right = tuple[str, str, bool]
"""Who gave it, to whom (empty: to everybody), and whether it may be given on."""


def carry_routine_rights(script: Script, reader: Reader, target: Relation) -> None:
    """Make owner and grants of ``target``, the routine made after ``reader``, equal to its own.

    A new routine may be called by everybody, and by whom ALTER DEFAULT PRIVILEGES names.
    """
    connection = script.connection
    name = signature(connection, replace(reader, relation=target))
    owner = _owner(connection, reader.oid)
    if owner != _owner(connection, target.oid):
        _let_create(script, target.schema, owner)
        _run(script, sql.SQL("ALTER ROUTINE {} OWNER TO {}").format(name, sql.Identifier(owner)))
    wanted = _rights(connection, reader.oid)
    for _, grantee, _ in sorted(set(_rights(connection, target.oid)).difference(wanted)):
        revoke = sql.SQL("REVOKE ALL ON ROUTINE {} FROM {} CASCADE")
        _run(script, revoke.format(name, _role(grantee)))
    have = _rights(connection, target.oid)
    left = [right for right in wanted if right not in have]
    givers = {owner}
    while left:
        ready = [right for right in left if right[0] in givers] or left
        for giver, grantee, grantable in ready:
            grant = sql.SQL("GRANT EXECUTE ON ROUTINE {} TO {}{}").format(
                name, _role(grantee), sql.SQL(" WITH GRANT OPTION" if grantable else "")
            )
            with acting_as(script, None if giver == owner else giver, target.schema):
                _run(script, grant)
        givers |= {grantee for _, grantee, _ in ready}
        left = [right for right in left if right not in ready]


def _let_create(script: Script, schema: str, owner: str) -> None:
    """An owner must have CREATE on the schema (PostgreSQL docs, sql-alterfunction)."""
    row = script.connection.execute(
        "SELECT pg_catalog.has_schema_privilege(%s, %s, 'CREATE')", [owner, schema]
    ).fetchone()
    if row != (True,):
        _run(
            script,
            sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(
                sql.Identifier(schema), sql.Identifier(owner)
            ),
        )


def _run(script: Script, statement: sql.Composed) -> None:
    script.run(statement, lock="none", why="same owner and grants as before")


def _role(name: str) -> sql.Composable:
    return sql.Identifier(name) if name else sql.SQL("PUBLIC")


def _owner(connection: Connection, oid: int) -> str:
    row = connection.execute(_OWNER, [oid]).fetchone()
    return str(row[0]) if row else ""


def _rights(connection: Connection, oid: int) -> list[Right]:
    return connection.execute(_RIGHTS, [oid]).fetchall()


_OWNER = "SELECT pg_catalog.pg_get_userbyid(proowner) FROM pg_catalog.pg_proc WHERE oid = %s"

_RIGHTS = """
SELECT pg_catalog.pg_get_userbyid(a.grantor),
       CASE a.grantee WHEN 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
       a.is_grantable
FROM pg_catalog.pg_proc p,
     pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
WHERE p.oid = %s
"""
