"""What check and plan say about going back, before anything is begun."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from restructure.errors import Finding
from restructure.model.phase import Phase
from restructure.phases.preflight import preflight
from restructure.phases.preview import Preview, preview
from restructure.plan.load import parse_plan
from restructure.postgres.connect import connect
from restructure.shape.table import read_table

CREATE = """
CREATE TABLE t (
    id integer PRIMARY KEY, amount numeric(10, 2) NOT NULL, kind integer NOT NULL,
    legacy text DEFAULT '5%', note text, twice integer GENERATED ALWAYS AS (length(note) * 2) STORED);
"""
PLAN = """
name: t
table: t
alter: [ALTER id TYPE bigint, ADD cents bigint, DROP amount, DROP kind, DROP legacy]
columns: {cents: amount * 100}
"""
ALTER = "name: t\ntable: t\nalter: [%s]\n"
NONE = "cutover: {revert_window: 0}\n"


@pytest.fixture
def table(connection: psycopg.Connection) -> psycopg.Connection:
    connection.execute(CREATE)
    return connection


def warnings(dsn: str, plan: str) -> list[Finding]:
    with connect(dsn) as session:
        found = preflight(session, dsn, parse_plan(plan)).findings
    assert not [finding for finding in found if finding.refuses]
    return [finding for finding in found if finding.check == "way_back"]


def previewed(dsn: str, plan: str) -> Preview:
    with connect(dsn) as session:
        return preview(session, parse_plan(plan), read_table(session, "t"))


def test_columns_that_a_revert_does_not_reach_are_named(
    database: str, table: psycopg.Connection
) -> None:
    lost, refused = warnings(database, PLAN)
    assert "cutover of amount of public.t" in lost.message
    assert "amount:" in lost.hint and "--accept-loss" in lost.hint
    assert "amount, kind are NOT NULL" in refused.message

    told = PLAN + "reverse: {amount: cents / 100.0}\n"
    (left,) = warnings(database, told)
    assert "kind is NOT NULL" in left.message and "amount" not in left.message

    table.execute("ALTER TABLE t ALTER kind SET DEFAULT 1")
    assert warnings(database, told) == []


@pytest.mark.parametrize(
    ("clauses", "why"),
    [
        ("ALTER id TYPE text", "id (integer) is not made of id (text)"),
        ("ALTER id TYPE float8", "no index on id (integer) finds a value of type double precision"),
        (
            "DROP CONSTRAINT t_pkey, ADD UNIQUE (id), ADD PRIMARY KEY (kind)",
            "replica identity does not have id",
        ),
    ],
    ids=["a key without a cast back", "a key of another kind", "another replica identity"],
)
def test_where_there_will_be_no_way_back_it_is_said_why(
    database: str, table: psycopg.Connection, clauses: str, why: str
) -> None:
    (found,) = warnings(database, ALTER % clauses)
    assert "no way back" in found.message and why in found.message
    shown = previewed(database, ALTER % clauses)
    assert why in shown.way_back.why
    assert shown.as_json()["way_back"] is None
    assert not [step for step in shown.steps if "_reverse" in step.text]


def test_a_generated_column_in_the_new_key_is_published_from_18_on(
    database: str, table: psycopg.Connection
) -> None:
    """Else the cutover would be refused after all the copying: the publication could not be made."""
    old = table.info.server_version < 180000
    plan = ALTER % (
        "ADD COLUMN part integer GENERATED ALWAYS AS (id + 1) STORED,"
        " DROP CONSTRAINT t_pkey, 'ADD PRIMARY KEY (id, part)'"
    )
    assert ["part" in found.message for found in warnings(database, plan)] == [True] * old


def test_a_plan_that_wants_no_way_back_is_told_nothing(
    database: str, table: psycopg.Connection
) -> None:
    assert warnings(database, PLAN + NONE) == []
    shown = previewed(database, PLAN + NONE)
    assert "revert_window" in shown.way_back.why
    assert not [step for step in shown.steps if "_reverse" in step.text]


def test_plan_shows_how_the_way_back_is_made_and_what_it_brings(
    database: str, table: psycopg.Connection
) -> None:
    shown = previewed(database, PLAN)
    steps = list(shown.steps)

    def at(words: str) -> int:
        return next(number for number, step in enumerate(steps) if words in step.text)

    publication = at(
        'CREATE PUBLICATION "restructure_t_reverse" FOR TABLE ONLY "restructure_t"."t"'
    )
    slot = at('CREATE_REPLICATION_SLOT "restructure_t_reverse"')
    assert publication < slot < at("BEGIN")
    quiet, merge = at("-- take triggers"), at('MERGE INTO "restructure_t_retired"."t"')
    assert at("phase = 'live'; COMMIT") < quiet < merge == len(steps) - 1
    assert "'5%'" in steps[merge].text
    assert {steps[place].phase for place in (publication, slot)} == {Phase.CUTOVER}

    document: dict[str, Any] = shown.as_json()["way_back"]
    assert document["window"] == "1d"
    columns = {column.pop("column"): column for column in document["columns"]}
    assert columns["id"]["expression"] == 'CAST("t"."id" AS integer)'
    assert {name: (c["how"], c["default"], c["row_refused"]) for name, c in columns.items()} == {
        "id": ("filled", None, False),
        "amount": ("lost", None, True),
        "kind": ("kept", None, True),
        "legacy": ("kept", "'5%'::text", False),
        "note": ("filled", None, False),
        "twice": ("generated", None, False),
    }
