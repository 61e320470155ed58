"""A live table restructured while clients write to it."""

from __future__ import annotations

import psycopg

from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.runner import Runner
from tests.pipeline.tool import Tool, leftovers
from tests.workload import PLAN, Workload, seed


def test_every_acknowledged_write_is_in_the_new_table(
    database: str, connection: psycopg.Connection
) -> None:
    seed(connection, 20_000)
    with Workload(database, 20_000) as load, Tool(database, PLAN.format(name="items")) as tool:
        job = tool.finish()
        load.wait_for_writes(20)
        load.stop()
        assert job.phase == Phase.LIVE
        load.assert_complete(connection)
    kind = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'items'::regclass AND attname = 'id'"
    ).fetchone()
    assert kind == ("bigint",)


def test_a_job_can_stay_ready_for_as_long_as_people_like(
    database: str, connection: psycopg.Connection
) -> None:
    seed(connection, 5_000)
    with Workload(database, 5_000) as load:
        with Tool(database, PLAN.format(name="items"), Wish(stay=True)) as tool:
            tool.wait_for_phase(Phase.READY)
            load.wait_for_writes(200)
            connection.execute("UPDATE restructure.job SET request = 'cutover'")
            assert tool.finish().phase == Phase.LIVE
        load.wait_for_writes(20)
        load.stop()
        load.assert_complete(connection)


def test_abort_leaves_the_source_alone_and_nothing_of_ours(
    database: str, connection: psycopg.Connection
) -> None:
    seed(connection, 2_000)
    with Workload(database, 2_000) as load:
        with Tool(database, PLAN.format(name="items"), Wish()) as tool:
            assert tool.finish().phase == Phase.READY
        runner = Runner(database, lambda *_: None, lambda *_: None)
        runner.abort("items")
        load.wait_for_writes(50)
        load.stop()
    assert leftovers(database) == []
    columns = connection.execute(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'items'::regclass AND attnum > 0"
    ).fetchone()
    assert columns == (5,)
