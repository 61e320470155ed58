"""A native subscriber goes on across the swap as if nothing had happened."""

from __future__ import annotations

import time

import psycopg
import pytest
from psycopg import sql

from restructure.demo.server import Server
from restructure.model.phase import Phase
from tests.fix_server import fresh_database
from tests.pipeline.tool import PATIENCE, Tool
from tests.workload import Workload, seed

SAME_SHAPE = """
name: items
table: items
alter:
  - ALTER COLUMN amount SET DEFAULT 5
copy: {workers: 2, chunk_target: 20ms}
"""
ROWS = "SELECT id, code, amount, body, flag FROM items ORDER BY id"


@pytest.mark.parametrize("published", ["TABLE items", "TABLES IN SCHEMA public"])
def test_a_subscriber_gets_every_change_before_and_after_the_swap(
    server: Server, database: str, connection: psycopg.Connection, published: str
) -> None:
    rows = 3_000
    seed(connection, rows)
    slot = f"{connection.info.dbname}_sub"
    connection.execute(sql.SQL("CREATE PUBLICATION p FOR {}").format(sql.SQL(published)))
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    with (
        fresh_database(server) as elsewhere,
        psycopg.connect(elsewhere, autocommit=True) as subscriber,
    ):
        seed(subscriber, rows)
        subscriber.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p"
                " WITH (create_slot = false, slot_name = {}, copy_data = false)"
            ).format(sql.Literal(database), sql.Literal(slot))
        )
        with Workload(database, rows) as load:
            with Tool(database, SAME_SHAPE) as tool:
                assert tool.finish().phase == Phase.LIVE
                warnings = [detail for _, event, detail in tool.events if event == "warning"]
            load.wait_for_writes(100)
            load.stop()

        assert any(slot in warning["message"] for warning in warnings)
        await_same(connection, subscriber)
        errors = subscriber.execute("SELECT apply_error_count FROM pg_stat_subscription_stats")
        assert errors.fetchall() == [(0,)]


def await_same(publisher: psycopg.Connection, subscriber: psycopg.Connection) -> None:
    expected = publisher.execute(ROWS).fetchall()
    deadline = time.monotonic() + PATIENCE
    while subscriber.execute(ROWS).fetchall() != expected:
        assert time.monotonic() < deadline, "the subscriber did not get every change"
        time.sleep(0.1)
