"""Rules on the table, and rules of other tables whose action uses it."""

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
SELECT r.oid::int8, c.oid::int8 AS table, n.nspname::text AS schema, c.relname::text AS relation,
       c.oid = ANY(%(tree)s::oid[]) AS ours, r.rulename::text AS name,
       'CREATE RULE ' || quote_ident(r.rulename) || ' AS' AS head,
       c.oid::regclass::text AS printed_table,
       rtrim(pg_catalog.pg_get_ruledef(r.oid, true), ';') AS definition,
       r.ev_enabled::text AS acts, pg_catalog.obj_description(r.oid, 'pg_rewrite') AS comment,
       'rule ' || (pg_catalog.pg_identify_object(r.tableoid, r.oid, 0)).identity AS label
FROM pg_catalog.pg_rewrite r
JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('r', 'p')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = ANY(%(tree)s::oid[])
   OR EXISTS (SELECT FROM pg_catalog.pg_depend d
              JOIN replaced o ON o.classid = d.refclassid AND o.objid = d.refobjid
              WHERE d.classid = r.tableoid AND d.objid = r.oid)
ORDER BY array_position(%(tree)s::oid[], c.oid), c.oid, r.rulename
"""
)

_STATES: dict[str, LiteralString] = {
    "D": "DISABLE",
    "R": "ENABLE REPLICA",
    "A": "ENABLE ALWAYS",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """``definition`` is PostgreSQL's own text: the head, the event, TO and the table, the rest."""

    oid: int
    table: int
    schema: str
    relation: str
    ours: bool
    name: str
    head: str
    printed_table: str
    definition: str
    acts: str
    comment: str | None
    label: str

    def create(self, table: sql.Identifier, *, replace: bool = False) -> sql.Composed:
        """CREATE RULE on ``table``; one that is replaced keeps its state and comment."""
        body = self.definition.removeprefix(self.head)
        event, _, rest = body.partition(f" TO {self.printed_table}")
        return sql.SQL("CREATE {}RULE {} AS{} TO {}{}").format(
            sql.SQL("OR REPLACE " if replace else ""),
            sql.Identifier(self.name),
            printed(event),
            table,
            printed(rest),
        )


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "rule")


def part(carrying: Carrying) -> Part:
    """Make the table's own again, and bind others' anew. Raises OperatorNeeded where one cannot be."""
    rules = _read(carrying)
    others = _elsewhere(carrying, rules)
    things.refuse(_unknown(carrying, rules))
    things.refuse(elsewhere.reasons(carrying, others))
    own = things.compose(carrying, _own(carrying, rules), "ROW EXCLUSIVE")
    return things.joined(own, elsewhere.compose(carrying, others))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Say which rule cannot be made, and why."""
    rules = _read(carrying)
    yield from _unknown(carrying, rules)
    yield from things.rehearse(carrying, _own(carrying, rules))
    yield from elsewhere.rehearse(carrying, _elsewhere(carrying, rules))


def _read(carrying: Carrying) -> list[Rule]:
    with carrying.relative(), carrying.connection.cursor(row_factory=class_row(Rule)) as cursor:
        return cursor.execute(_READ, carrying.tree).fetchall()


def _unknown(carrying: Carrying, rules: list[Rule]) -> Iterator[str]:
    found = find(carrying.connection, carrying.source)
    return things.unknown(found, (rule.oid for rule in rules), "it uses the row type")


def _own(carrying: Carrying, rules: list[Rule]) -> list[Thing]:
    place = Place(carrying)
    return [
        place.thing(
            rule.label,
            "pg_rewrite",
            rule.oid,
            rule.table,
            _statements(rule, place.table(rule.table)),
            "ACCESS EXCLUSIVE",
        )
        for rule in rules
        if rule.ours
    ]


def _elsewhere(carrying: Carrying, rules: list[Rule]) -> list[Elsewhere]:
    found = []
    for rule in rules:
        if not rule.ours:
            other = Relation(rule.table, rule.schema, rule.relation)
            trial = rule.create(elsewhere.stand_in_name(carrying, other))
            statement = rule.create(other.identifier, replace=True)
            found.append(Elsewhere(rule.label, "pg_rewrite", rule.oid, other, statement, trial))
    return found


def _statements(rule: Rule, table: sql.Identifier) -> Iterator[sql.Composable]:
    yield rule.create(table)
    if rule.acts in _STATES:
        yield sql.SQL("ALTER TABLE {} {} RULE {}").format(
            table, sql.SQL(_STATES[rule.acts]), sql.Identifier(rule.name)
        )
    if rule.comment is not None:
        yield sql.SQL("COMMENT ON RULE {} ON {} IS {}").format(
            sql.Identifier(rule.name), table, sql.Literal(rule.comment)
        )


KIND = Kind(
    "rule",
    find,
    how="created on the new table in the swap; another table's is bound to the new table there",
    hint="Drop it and create it again afterwards.",
    part=part,
    rehearse=rehearse,
)
