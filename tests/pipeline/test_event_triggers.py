"""An event trigger that raises: a clear error, and everything as it was."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.model.phase import Phase
from tests.carry.build import dump
from tests.pipeline.shapes import ask_for_cutover, count, one, plan, run, until_ready
from tests.pipeline.tool import Tool


@pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end", "sql_drop"])
def test_an_event_trigger_that_raises_leaves_everything_as_it_was(
    server: Server, database: str, connection: psycopg.Connection, event: str
) -> None:
    run(
        connection,
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);"
        "CREATE TABLE t (id int PRIMARY KEY, parent int DEFAULT 1 REFERENCES parent);"
        "INSERT INTO t SELECT generate_series(1, 50);"
        "CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no DDL in business hours'; END$$",
    )
    before = dump(server, database)
    old = one(connection, "SELECT 't'::regclass::oid")
    text = plan("t", alter=["ALTER id TYPE bigint"], cutover={"attempts": 1, "lock_budget": "5s"})
    with until_ready(database, text) as tool:
        tool.wait_for_phase(Phase.READY)
        run(connection, f"CREATE EVENT TRIGGER guard ON {event} EXECUTE FUNCTION guard()")
        ask_for_cutover(connection)
        with pytest.raises(OperatorNeeded, match="no DDL in business hours"):
            tool.finish()
    run(connection, "DROP EVENT TRIGGER guard")
    assert one(connection, "SELECT 't'::regclass::oid") == old
    assert dump(server, database) == before
    run(connection, "INSERT INTO t VALUES (51)")
    with Tool(database, text) as tool:
        assert tool.finish().phase == Phase.LIVE
    assert count(connection, "SELECT count(*) FROM t") == 51
