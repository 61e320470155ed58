"""Changes on their way into the shadow: unique values in passing, refused rows, lost runners."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from restructure import runner
from restructure.catalog.job import LostToken
from restructure.errors import NotNow
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.phases import ready
from tests.fix_proxy import Proxy
from tests.fix_server import FreshServer
from tests.pipeline.moments import (
    Gate,
    assert_swapped_whole,
    eventually,
    shadow_equals_source,
    value,
)
from tests.pipeline.tool import Tool, run_to_live
from tests.workload import PLAN, Workload, seed

ITEMS = PLAN.format(name="items")
SPOOL = "SELECT count(*) FROM restructure.spool_items"
QUARANTINE = "SELECT count(*) FROM restructure.quarantine_items"
Session = psycopg.Connection


@pytest.fixture
def items(connection: Session) -> Session:
    seed(connection, 500)
    return connection


def cut_over(tool: Tool, session: Session) -> None:
    session.execute("UPDATE restructure.job SET request = 'cutover'")
    assert tool.finish().phase == Phase.LIVE
    assert_swapped_whole(session)


def take(session: Session, one: int, other: int) -> None:
    """Exchange two unique values, leaving one of the rows with NULL for a moment only."""
    with session.transaction():
        codes = dict(
            session.execute(
                "SELECT id, code FROM items WHERE id = ANY(%s)", [[one, other]]
            ).fetchall()
        )
        session.execute("UPDATE items SET code = NULL WHERE id = %s", [one])
        session.execute("UPDATE items SET code = %s WHERE id = %s", [codes[one], other])
        session.execute("UPDATE items SET code = %s WHERE id = %s", [codes[other], one])


def test_unique_values_that_change_places_are_never_refused(database: str, items: Session) -> None:
    """A MERGE checks row by row, and meets the value at the row that it has not come to."""
    with Gate("catchup.applied") as gate, Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.until(lambda: gate.reached)
        take(items, 1, 2)
        for one, other in ((10, 11), (11, 12), (12, 13), (13, 10)):
            take(items, one, other)
        with items.transaction():  # a key that takes another's value, whose row goes
            items.execute("DELETE FROM items WHERE id = 20")
            items.execute("UPDATE items SET code = 'c20' WHERE id = 21")
        gate.open()
        tool.wait_for_phase(Phase.READY)
        eventually(lambda: value(items, SPOOL) == 0, "the spool is empty")
        assert shadow_equals_source(items)
        assert value(items, QUARANTINE) == 0
        cut_over(tool, items)


def test_one_mark_of_two_is_enough_to_exchange_unique_values(database: str, items: Session) -> None:
    """The batch has one of the rows only: the mark of the other is still to come.

    Made so by hand: the other's mark is taken out of the spool and put back later.
    """
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for("verified")  # which would rightly miss the mark
        with Gate("catchup.applied") as gate:
            tool.until(lambda: gate.reached)
            take(items, 1, 2)
            eventually(lambda: value(items, SPOOL) == 2, "both are marked")
            row = items.execute(
                "DELETE FROM restructure.spool_items WHERE k1 = 1 RETURNING xid::text, k1"
            ).fetchone()
            assert row is not None
        eventually(lambda: value(items, QUARANTINE) == 1, "the row is refused for now")
        items.execute(
            "INSERT INTO restructure.spool_items (xid, k1) VALUES (%s::xid8, %s)", list(row)
        )
        cut_over(tool, items)


def test_a_refused_row_waits_in_quarantine_while_the_stream_goes_on(
    database: str, items: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the next try would empty the quarantine for a moment
    monkeypatch.setattr(ready, "RETRY_QUARANTINE_EVERY", 1e9)
    plan = ITEMS.replace(
        "  - DROP COLUMN flag", "  - DROP COLUMN flag\n  - ADD CHECK (amount < 1000000)"
    )
    items.execute("UPDATE items SET amount = 5000000 WHERE id = 3")  # found by the copy
    with Tool(database, plan, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        items.execute("UPDATE items SET amount = 5000000 WHERE id = 5")
        items.execute("UPDATE items SET amount = 1 WHERE id = 6")
        eventually(lambda: value(items, QUARANTINE) == 2, "both rows are refused")
        items.execute("UPDATE items SET amount = 2 WHERE id = 7")
        amounts = (
            "SELECT array_agg(amount ORDER BY id) FROM restructure_items.items WHERE id IN (6, 7)"
        )
        eventually(lambda: value(items, amounts) == [1, 2], "the stream goes on")
        reasons = items.execute(
            "SELECT sqlstate, reason FROM restructure.quarantine_items"
        ).fetchall()
        assert {reason[0] for reason in reasons} == {"23514"}
        assert "5000000" not in str(reasons), "an error shows a row's value"
        items.execute("UPDATE restructure.job SET request = 'cutover'")
        tool.not_yet("refused by the new shape")
        items.execute("UPDATE items SET amount = 3 WHERE id IN (3, 5)")
        cut_over(tool, items)
    assert value(items, "SELECT count(*) FROM items") == 500


# -- who runs the job


def test_a_second_runner_is_turned_away(
    database: str, items: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_ATTEND_FOR", 0.0)
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        with pytest.raises(NotNow, match="attended by restructure items main") as refused:
            run_to_live(database, ITEMS)
        assert refused.value.exit_code == 5
        cut_over(tool, items)


def test_a_runner_that_lost_its_token_writes_no_more(database: str, items: Session) -> None:
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        items.execute("UPDATE restructure.job SET token = token + 1")
        with pytest.raises(LostToken):
            tool.finish()
    assert value(items, "SELECT error FROM restructure.job") is None
    assert run_to_live(database, ITEMS).phase == Phase.LIVE


def test_a_lost_token_is_found_by_the_swap_itself(database: str, items: Session) -> None:
    """The last moment at which it can be: the watch looks every now and then only."""
    with Gate("cutover.drained") as gate, Tool(database, ITEMS) as tool:
        tool.until(lambda: gate.reached)
        items.execute("UPDATE restructure.job SET token = token + 1")
        gate.open()
        with pytest.raises(LostToken):
            tool.finish()
    assert value(items, "SELECT phase FROM restructure.job") == Phase.CUTOVER
    assert run_to_live(database, ITEMS).phase == Phase.LIVE


# -- the database goes away


@contextlib.contextmanager
def closed_gates(*points: str) -> Iterator[list[Gate]]:
    """All closed before the tool starts, which might run past one that is made later."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Gate(point)) for point in points]


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_the_run_goes_on_by_itself_after_the_server_was_away(
    fresh_server: FreshServer, how: str
) -> None:
    server = fresh_server()
    dsn = server.dsn
    with psycopg.connect(dsn, autocommit=True) as session:
        seed(session, 3_000)
    points = ("copy.chunk", "catchup.applied", "cutover.prepared")
    with closed_gates(*points) as gates, Tool(dsn, ITEMS) as tool:
        for gate in gates:
            tool.until(lambda gate=gate: gate.reached)  # type: ignore[misc]
            with psycopg.connect(dsn, autocommit=True) as session:
                session.execute("UPDATE items SET amount = amount + 1 WHERE id % 7 = 0")
            server.restart(how)  # type: ignore[arg-type]
            gate.open()
        assert tool.finish().phase == Phase.LIVE
        assert tool.happened.count("connection lost, trying again") >= len(points)
    with psycopg.connect(dsn, autocommit=True) as session:
        assert_swapped_whole(session)
        assert value(session, "SELECT sum(amount - id) FROM items") == 3 * (3_000 // 7)


def test_cut_connections_cost_nothing(database: str, items: Session, proxy: Proxy) -> None:
    points = ("copy.chunk", "index.built", "catchup.applied", "cutover.drained")
    with Workload(database, 500, writers=2) as load:
        with closed_gates(*points) as gates, Tool(proxy.dsn, ITEMS) as tool:
            for gate in gates:
                tool.until(lambda gate=gate: gate.reached)  # type: ignore[misc]
                proxy.cut()
                gate.open()
            assert tool.finish().phase == Phase.LIVE
        load.wait_for_writes(20)
        load.stop()
        load.assert_complete(items)
