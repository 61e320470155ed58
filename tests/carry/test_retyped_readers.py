"""Whoever reads a column that gets another type is named before anything is made."""

from __future__ import annotations

import psycopg

from restructure.checks.table import retyped_readers
from restructure.shape.table import read_table
from tests.shape_workbench import build, plan


def test_readers_of_a_retyped_column_are_named_and_others_are_not(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text); CREATE SCHEMA reports;"
        "CREATE VIEW ids AS SELECT id, b FROM t; CREATE VIEW words AS SELECT b FROM t;"
        "CREATE MATERIALIZED VIEW reports.both AS SELECT id + a AS total FROM t;"
        "CREATE FUNCTION last() RETURNS int BEGIN ATOMIC SELECT max(id) FROM t; END;"
        "CREATE FUNCTION lines() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM t; END"
    )
    source = read_table(connection, "t")
    shadow = build(connection, plan(alter=["ALTER id TYPE bigint", "ALTER a TYPE numeric"]), source)
    found = list(retyped_readers.find(connection, source, shadow))
    assert [finding.message for finding in found] == [
        "function last() reads id, which becomes bigint",
        "materialized view reports.both reads a, which becomes numeric, id, which becomes bigint",
        "view public.ids reads id, which becomes bigint",
    ]
    assert not any(finding.refuses for finding in found)
    assert all("made anew" in finding.hint for finding in found)


def test_a_plan_that_keeps_all_types_names_nobody(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM t")
    source = read_table(connection, "t")
    shadow = build(connection, plan(alter=["ADD COLUMN x text"]), source)
    assert list(retyped_readers.find(connection, source, shadow)) == []
