"""An event trigger that raises: a clear error, and everything as it was."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.model.phase import Phase
from tests.carry.build import dump
from tests.pipeline.shapes import count, one, plan, run
from tests.pipeline.tool import Tool


@pytest.mark.parametrize(
    ("event", "since", "refused"),
    [
        ("ddl_command_start", "ready entered", "a verification needs"),
        ("ddl_command_start", "verified", "the way back"),
        ("ddl_command_start", "cutover entered", "what hangs on the table"),
        ("ddl_command_end", "cutover entered", "what hangs on the table"),
        ("sql_drop", "cutover entered", "the swap was rolled back"),
    ],
)
def test_an_event_trigger_that_raises_leaves_everything_as_it_was(
    server: Server,
    database: str,
    connection: psycopg.Connection,
    event: str,
    since: str,
    refused: str,
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
    tries = {"attempts": 1, "lock_budget": "5s"}
    if since == "cutover entered":
        tries["revert_window"] = 0  # or the way back would be refused first
    text = plan("t", alter=["ALTER id TYPE bigint"], cutover=tries)
    with Tool(database, text, hold=since) as tool:
        tool.held()
        run(connection, f"CREATE EVENT TRIGGER guard ON {event} EXECUTE FUNCTION guard()")
        with pytest.raises(OperatorNeeded, match=f"{refused}.*no DDL in business hours"):
            tool.finish()
    run(connection, "DROP EVENT TRIGGER guard")
    assert one(connection, "SELECT 't'::regclass::oid") == old
    assert dump(server, database) == before
    run(connection, "INSERT INTO t VALUES (51)")
    with Tool(database, text) as tool:
        assert tool.finish().phase == Phase.LIVE
    assert count(connection, "SELECT count(*) FROM t") == 51
