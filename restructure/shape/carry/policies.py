"""Row-level policies of the table, and policies elsewhere whose expression reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.carry import elsewhere, things
from restructure.shape.carry.dependents import REPLACED, Dependent, dependents
from restructure.shape.carry.elsewhere import Elsewhere
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.things import Place, Thing
from restructure.shape.deparse import printed
from restructure.shape.table import Table

_READ: LiteralString = (
    REPLACED
    + """
SELECT p.oid::int8, p.polrelid::int8 AS table, n.nspname::text AS schema, c.relname::text AS relation,
       c.oid = ANY(%(tree)s::oid[]) AS ours, p.polname::text AS name, p.polpermissive AS permissive,
       p.polcmd::text AS command,
       ARRAY(SELECT CASE role WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(role)::text END
             FROM unnest(p.polroles) AS role) AS roles,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS visible,
       pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS allowed,
       pg_catalog.obj_description(p.oid, 'pg_policy') AS comment,
       'policy ' || (pg_catalog.pg_identify_object(p.tableoid, p.oid, 0)).identity AS label
FROM pg_catalog.pg_policy p
JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%(tree)s::oid[])
   OR EXISTS (SELECT FROM pg_catalog.pg_depend d
              JOIN replaced r ON r.classid = d.refclassid AND r.objid = d.refobjid
              WHERE d.classid = p.tableoid AND d.objid = p.oid)
ORDER BY array_position(%(tree)s::oid[], c.oid), c.oid, p.polname
"""
)

_COMMANDS: dict[str, LiteralString] = {
    "*": "ALL",
    "r": "SELECT",
    "a": "INSERT",
    "w": "UPDATE",
    "d": "DELETE",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """``visible`` and ``allowed`` are USING and WITH CHECK. No role is PUBLIC."""

    oid: int
    table: int
    schema: str
    relation: str
    ours: bool
    name: str
    permissive: bool
    command: str
    roles: list[str | None]
    visible: str | None
    allowed: str | None
    comment: str | None
    label: str


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "policy")


def part(carrying: Carrying) -> Part:
    """Make the table's own again, and bind others' anew. Raises OperatorNeeded where one cannot be."""
    policies = _read(carrying)
    others = _elsewhere(carrying, policies)
    things.refuse(_unknown(carrying, policies))
    things.refuse(elsewhere.reasons(carrying, others))
    own = things.compose(carrying, _own(carrying, policies))
    return things.joined(own, elsewhere.compose(carrying, others))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Say which policy cannot be made, and why."""
    policies = _read(carrying)
    yield from _unknown(carrying, policies)
    yield from things.rehearse(carrying, _own(carrying, policies))
    yield from elsewhere.rehearse(carrying, _elsewhere(carrying, policies))


def _read(carrying: Carrying) -> list[Policy]:
    with carrying.relative(), carrying.connection.cursor(row_factory=class_row(Policy)) as cursor:
        return cursor.execute(_READ, carrying.tree).fetchall()


def _unknown(carrying: Carrying, policies: list[Policy]) -> Iterator[str]:
    found = find(carrying.connection, carrying.source)
    return things.unknown(found, (policy.oid for policy in policies), "it uses the row type")


def _own(carrying: Carrying, policies: list[Policy]) -> list[Thing]:
    place = Place(carrying)
    return [
        place.thing(
            policy.label,
            "pg_policy",
            policy.oid,
            policy.table,
            _statements(policy, place.table(policy.table)),
            "ACCESS EXCLUSIVE",
        )
        for policy in policies
        if policy.ours
    ]


def _elsewhere(carrying: Carrying, policies: list[Policy]) -> list[Elsewhere]:
    found = []
    for policy in policies:
        if not policy.ours:
            other = Relation(policy.table, policy.schema, policy.relation)
            statement = sql.SQL("ALTER POLICY {} ON {}{}").format(
                sql.Identifier(policy.name), other.identifier, _expressions(policy)
            )
            trial = _create(policy, elsewhere.stand_in_name(carrying, other))
            found.append(Elsewhere(policy.label, "pg_policy", policy.oid, other, statement, trial))
    return found


def _statements(policy: Policy, table: sql.Identifier) -> Iterator[sql.Composable]:
    yield _create(policy, table)
    if policy.comment is not None:
        yield sql.SQL("COMMENT ON POLICY {} ON {} IS {}").format(
            sql.Identifier(policy.name), table, sql.Literal(policy.comment)
        )


def _create(policy: Policy, table: sql.Identifier) -> sql.Composed:
    roles = [sql.SQL("PUBLIC") if role is None else sql.Identifier(role) for role in policy.roles]
    return sql.SQL("CREATE POLICY {} ON {} AS {} FOR {} TO {}{}").format(
        sql.Identifier(policy.name),
        table,
        sql.SQL("PERMISSIVE" if policy.permissive else "RESTRICTIVE"),
        sql.SQL(_COMMANDS[policy.command]),
        sql.SQL(", ").join(roles),
        _expressions(policy),
    )


def _expressions(policy: Policy) -> sql.Composed:
    parts = (("USING", policy.visible), ("WITH CHECK", policy.allowed))
    return sql.SQL("").join(
        sql.SQL(" {} ({})").format(sql.SQL(word), printed(text)) for word, text in parts if text
    )


KIND = Kind(
    "policy",
    find,
    how="created on the new table in the swap; another table's is bound to the new table there",
    hint="Drop it and create it again afterwards.",
    part=part,
    rehearse=rehearse,
)
