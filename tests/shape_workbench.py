"""What the tests of shape share: a table, a plan, and the shadow or the complaint it leads to."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from restructure.errors import PlanError
from restructure.model.names import Names
from restructure.plan.load import LoadedPlan, parse_plan
from restructure.postgres.script import Script
from restructure.shape.deparse import printed
from restructure.shape.shadow import Shadow, build_shadow
from restructure.shape.table import Table, read_relation, read_table

JOB = "job"
SCHEMA = "restructure_job"


def plan(table: str = "t", **sections: object) -> LoadedPlan:
    """A plan in flow style, which any JSON is."""
    sections.setdefault("alter" if "create" not in sections else "drop", [])
    words = {"name": JOB, "table": table, **sections}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in words.items()]
    return parse_plan("\n".join(lines) + "\n", "p.yaml")


def build(
    connection: psycopg.Connection, loaded: LoadedPlan, source: Table | None = None
) -> Shadow:
    """Build the shadow and commit; what the catalog would give back must be the same."""
    source = source or read_table(connection, loaded.plan.table)
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, loaded, Names.of(JOB))
    row = connection.execute("SELECT %s::jsonb", [Jsonb(shadow.to_json())]).fetchone()
    assert row is not None
    assert Shadow.from_json(row[0]) == shadow
    return shadow


def refusal(connection: psycopg.Connection, loaded: LoadedPlan) -> str:
    """The complaint that building leads to. Nothing may be left, and nothing else changed."""
    before = tables(connection)
    with pytest.raises(PlanError) as caught:
        build(connection, loaded)
    assert tables(connection) == before
    assert caught.value.place is not None
    return f"{caught.value} ({caught.value.hint})"


def tables(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT oid, relname, relnamespace, xmin::text FROM pg_class"
        " WHERE oid >= 16384 ORDER BY oid"
    ).fetchall()


def finish(connection: psycopg.Connection, shadow: Shadow, *moments: str) -> None:
    """Run what was set aside."""
    for aside in shadow.set_aside:
        if aside.moment in moments:
            connection.execute(printed(aside.statement))


def copy(connection: psycopg.Connection, source: Table, shadow: Shadow) -> None:
    """Fill the shadow as the copy does."""
    filled = shadow.mapping.filled
    where = shadow.mapping.where or "true"
    statement = sql.SQL(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS {} WHERE {}"
    ).format(
        shadow.relation.identifier,
        sql.SQL(", ").join(sql.Identifier(column.name) for column in filled),
        sql.SQL(", ").join(printed(column.expression) for column in filled),
        source.relation.identifier,
        sql.Identifier(source.relation.name),
        printed(where),
    )
    connection.execute(statement)


def swap(connection: psycopg.Connection, source: Table, shadow: Shadow) -> None:
    """Only the moving, for tests that look at what is run in and after it."""
    connection.execute("CREATE SCHEMA retired")
    moves = [(member, "retired") for member in source.tree]
    made = read_relation(connection, shadow.relation.oid)
    moves += [(member, source.relation.schema) for member in made.tree]
    for member, schema in moves:
        connection.execute(
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                member.identifier, sql.Identifier(schema)
            )
        )
    finish(connection, shadow, "swap")


def expression(shadow: Shadow, column: str) -> str:
    return next(c.expression for c in shadow.mapping.filled if c.name == column)
