"""Commits that are decoded before they are visible: none of them may be lost."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from restructure.model.phase import Phase
from restructure.model.wish import Wish
from tests.pipeline.moments import (
    Ice,
    Passings,
    assert_swapped_whole,
    eventually,
    shadow_equals_source,
    value,
)
from tests.pipeline.tool import Tool
from tests.workload import PLAN, seed

ITEMS = PLAN.format(name="items")
SPOOL = "SELECT count(*) FROM restructure.spool_items"


@pytest.fixture
def ice(database: str, connection: psycopg.Connection) -> Iterator[Ice]:
    seed(connection, 200)
    with Ice(database) as made:
        connection.execute("SET synchronous_commit = local")
        yield made


def cut_over(tool: Tool, session: psycopg.Connection) -> None:
    session.execute("UPDATE restructure.job SET request = 'cutover'")
    assert tool.finish().phase == Phase.LIVE
    assert_swapped_whole(session)


def applied(tool: Tool, session: psycopg.Connection, number: int) -> None:
    """Write a row and see it arrive in the shadow: all that could be applied before it was."""
    session.execute("UPDATE items SET amount = amount + 1000000 WHERE id = %s", [number])
    eventually(
        lambda: value(
            session, "SELECT amount FROM restructure_items.items WHERE id = %s", number
        ) == value(session, "SELECT amount FROM items WHERE id = %s", number),
        "a later change is applied",
    )  # fmt: skip


def test_the_copy_waits_for_a_commit_that_the_slot_does_not_cover(
    database: str, connection: psycopg.Connection, ice: Ice
) -> None:
    """Committed before the slot's start and not yet visible: in neither stream nor snapshot."""
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        first.execute("SELECT pg_current_xact_id()")
        with Tool(database, ITEMS) as tool, Passings("setup.waiting") as waits:
            # the slot waits for the first transaction …
            eventually(
                lambda: value(
                    connection,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'",
                ) == 1,
                "the slot is being made",
            )  # fmt: skip
            second.execute("SELECT pg_current_xact_id()")
            first.rollback()
            # … then for the second, and takes note of what commits meanwhile as already done
            eventually(
                lambda: value(
                    connection,
                    "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
                    " AND transactionid = %s::xid",
                    value(second, "SELECT pg_current_xact_id()::xid::text"),
                ) == 1,
                "the slot waits for the second transaction",
            )  # fmt: skip
            writer = ice.freeze("INSERT INTO items VALUES (9001, 'hidden', 1, 'x', true)")
            second.rollback()
            tool.wait_for("slot")
            assert "client" in tool.wait_for("waiting for writers")["who"]
            waits.wait_for(3)
            writer.release(connection)
            assert tool.finish().phase == Phase.LIVE
    assert value(connection, "SELECT code FROM items WHERE id = 9001") == "hidden"
    assert_swapped_whole(connection)


HIDDEN = {
    "update": ["UPDATE items SET amount = 7777 WHERE id = 5"],
    "insert": ["INSERT INTO items VALUES (9001, 'new', 1, 'x', true)"],
    "delete": ["DELETE FROM items WHERE id = 6"],
    "key change": ["UPDATE items SET id = 9002 WHERE id = 7"],
    "insert again": [
        "DELETE FROM items WHERE id = 8",
        "INSERT INTO items VALUES (8, 'again', 2, 'y', true)",
    ],
    "subtransactions": [
        "SAVEPOINT one",
        "UPDATE items SET amount = 1 WHERE id = 9",
        "SAVEPOINT two",
        "UPDATE items SET amount = 2 WHERE id = 10",
        "RELEASE two",
        "RELEASE one",
    ],
}
MARKED = [5, 6, 7, 8, 9, 10, 9001, 9002]


def test_a_change_is_not_applied_before_it_is_visible(
    database: str, connection: psycopg.Connection, ice: Ice
) -> None:
    marks = "SELECT array_agg(DISTINCT k1 ORDER BY k1) FROM restructure.spool_items"
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        with psycopg.connect(database, autocommit=True) as client:
            client.execute("BEGIN; UPDATE items SET amount = 7777 WHERE id = 11")
            client.execute("PREPARE TRANSACTION 'two'")
        applied(tool, connection, 100)
        assert value(connection, SPOOL) == 0, "a prepared transaction is decoded at its commit"
        writers = [ice.freeze(*statements) for statements in HIDDEN.values()]
        writers.append(ice.freeze_prepared("two"))
        expected = sorted([*MARKED, 11])
        eventually(lambda: value(connection, marks) == expected, "the changes are decoded")
        applied(tool, connection, 100)
        assert value(connection, marks) == expected, "marks were taken before their time"
        for writer in writers:
            writer.release(connection)
        eventually(lambda: value(connection, SPOOL) == 0, "the changes are applied")
        assert shadow_equals_source(connection)
        cut_over(tool, connection)
    assert value(connection, "SELECT amount FROM items WHERE id = 11") == 7777


def test_a_truncation_is_not_applied_before_it_is_visible(
    database: str, connection: psycopg.Connection, ice: Ice
) -> None:
    with (
        Tool(database, ITEMS, Wish(stay=True)) as tool,
        Passings("catchup.applied") as applications,
    ):
        tool.wait_for("verified")
        writer = ice.freeze("TRUNCATE items", "INSERT INTO items VALUES (1, 'only', 1, 'x', true)")
        eventually(lambda: value(connection, SPOOL) == 2, "the truncation is decoded")
        applications.wait_for(3)
        assert value(connection, "SELECT count(*) FROM restructure_items.items") == 200
        writer.release(connection)
        eventually(lambda: value(connection, SPOOL) == 0, "the truncation is applied")
        assert value(connection, "SELECT count(*) FROM restructure_items.items") == 1
        cut_over(tool, connection)


def test_a_cutover_waits_for_a_writer_that_is_not_yet_visible(
    database: str, connection: psycopg.Connection, ice: Ice
) -> None:
    # the slot of a way back would wait for it before the lock does
    text = ITEMS + "cutover: {revert_window: 0}\n"
    with Tool(database, text, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        writer = ice.freeze("UPDATE items SET amount = 7777 WHERE id = 5")
        connection.execute("UPDATE restructure.job SET request = 'cutover'")
        tool.not_yet("client")
        writer.release(connection)
        cut_over(tool, connection)
    assert value(connection, "SELECT amount FROM items WHERE id = 5") == 7777


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_others_are_applied_while_a_large_transaction_is_streamed(
    database: str, connection: psycopg.Connection, end: str
) -> None:
    """Its keys arrive before it ends, and wait in the spool while later ones pass by."""
    seed(connection, 6_000)
    connection.execute(
        f"ALTER DATABASE {connection.info.dbname} SET logical_decoding_work_mem = 64"
    )  # type: ignore[arg-type]
    with (
        psycopg.connect(database, autocommit=True) as large,
        Tool(database, ITEMS, Wish(stay=True)) as tool,
    ):
        tool.wait_for_phase(Phase.READY)
        large.execute("BEGIN")
        large.execute("UPDATE items SET amount = -1 WHERE id > 500")
        eventually(lambda: value(connection, SPOOL) > 1_000, "keys come before the commit")  # type: ignore[operator]
        applied(tool, connection, 100)
        held = value(connection, SPOOL)
        assert isinstance(held, int)
        assert held > 1_000, "keys were taken before their transaction ended"
        large.execute(end)  # type: ignore[arg-type]
        applied(tool, connection, 101)  # its last keys came before this one
        eventually(lambda: value(connection, SPOOL) == 0, "the spool is empty")
        assert shadow_equals_source(connection)
        cut_over(tool, connection)
    changed = value(connection, "SELECT count(*) FROM items WHERE amount = -1")
    assert changed == (5_500 if end == "COMMIT" else 0)


def test_a_transaction_open_since_before_the_job_is_applied_when_it_commits(
    database: str, connection: psycopg.Connection
) -> None:
    """It holds up only the slot; started after the slot, it holds up nobody until the lock."""
    seed(connection, 500)
    with (
        psycopg.connect(database, autocommit=True) as client,
        Tool(database, ITEMS, Wish(stay=True), hold="copied") as tool,
    ):
        tool.held()
        client.execute("BEGIN")
        client.execute("UPDATE items SET amount = 7777 WHERE id = 5")
        tool.release()
        tool.wait_for_phase(Phase.READY)
        applied(tool, connection, 100)
        client.execute("COMMIT")
        cut_over(tool, connection)
    assert value(connection, "SELECT amount FROM items WHERE id = 5") == 7777
