"""A partition restructured while clients write through the table above it."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import PreflightRefused
from restructure.model.phase import Phase
from tests.carry.build import dump
from tests.pipeline.shapes import (
    Writers,
    count,
    one,
    plan,
    run,
)
from tests.pipeline.tool import Tool
from tests.workload import Workload

TREE = """
CREATE TABLE items (id int, code text, amount int NOT NULL, body text, flag boolean,
    size bigint GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (id))
    PARTITION BY RANGE (id);
CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (MINVALUE) TO (10000000);
CREATE TABLE items_high PARTITION OF items FOR VALUES FROM (10000000) TO (MAXVALUE);
CREATE INDEX items_code ON items (code); CREATE INDEX items_low_amount ON items_low (amount);
CREATE FUNCTION louder() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER louder BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION louder();
INSERT INTO items SELECT n, 'c' || n, n, repeat('x', 40), true FROM generate_series(1, {rows}) n;
"""


@pytest.mark.parametrize("partition", ["items_low", "items_high"])
def test_nothing_written_through_the_table_above_is_lost(
    server: Server, database: str, connection: psycopg.Connection, partition: str
) -> None:
    """Every new row and every new key goes to the upper partition, so rows leave the lower one."""
    rows = 6_000
    run(connection, TREE.format(rows=rows))
    before = dump(server, database)
    text = plan(partition, cutover={"lock_budget": "5s", "attempts": 50})
    with Workload(database, rows) as load, Tool(database, text) as tool:
        assert tool.finish().phase == Phase.LIVE
        load.wait_for_writes(100)
        load.stop()
        load.assert_complete(connection)
    assert dump(server, database) == before
    assert one(connection, f"SELECT '{partition}'::regclass") == partition
    assert count(connection, f"SELECT count(*) FROM {partition}") > 0


def test_clients_that_lock_the_partition_first_see_no_deadlock(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, TREE.format(rows=500))

    def both(first: str, second: str) -> str:
        """Each names one row only, so that the clients cannot block each other in a circle."""
        return "; ".join(
            f"UPDATE {table} SET amount = amount + 1 WHERE id = {number}"
            for table, number in ((first, 1), (second, 1))
        )

    steps = [
        both("items", "items_low"),
        both("items_low", "items"),
        both("items_high", "items_low"),
        "SELECT count(*) FROM items_low; UPDATE items SET amount = amount + 1 WHERE id = 1",
    ]
    text = plan("items_low", cutover={"lock_budget": "5s", "attempts": 50})
    with Writers(database, *steps) as writers, Tool(database, text) as tool:
        assert tool.finish().phase == Phase.LIVE
        writers.wait_for(30)
        writers.stop()


def test_a_change_that_the_table_above_would_need_too_is_refused_before_anything_is_made(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, TREE.format(rows=5))
    with (
        Tool(database, plan("items_low", alter=["ALTER amount TYPE bigint"])) as tool,
        pytest.raises(PreflightRefused) as caught,
    ):
        tool.finish()
    (finding,) = [finding for finding in caught.value.findings if finding.refuses]
    assert 'as a partition of public.items: child table "items_low" has different type' in (
        finding.message
    )
    assert "as a whole" in finding.hint
