"""The new table has extended statistics, with their data, before the first client meets it."""

from __future__ import annotations

import psycopg

from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.runner import Runner
from tests.pipeline.tool import Tool, leftovers
from tests.workload import PLAN, seed


def test_they_are_filled_when_the_job_is_ready_and_go_with_an_abort(
    database: str, connection: psycopg.Connection
) -> None:
    seed(connection, 1_000)
    connection.execute("CREATE STATISTICS together ON id, amount FROM items")

    with Tool(database, PLAN.format(name="items"), Wish()) as tool:
        assert tool.finish().phase == Phase.READY

    filled = connection.execute(
        "SELECT stxname FROM pg_statistic_ext_data JOIN pg_statistic_ext s ON s.oid = stxoid"
        " WHERE stxrelid = 'restructure_items.items'::regclass"
    ).fetchall()
    assert filled == [("together",)]
    Runner(database, lambda *_: None, lambda *_: None).abort("items")
    assert leftovers(database) == []
    names = connection.execute("SELECT stxnamespace::regnamespace::text FROM pg_statistic_ext")
    assert names.fetchall() == [("public",)]
