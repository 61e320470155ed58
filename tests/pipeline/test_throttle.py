"""What holds the work back: the throttle, the guard over WAL, and pause."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from restructure.demo.server import Server
from restructure.engine import copier
from restructure.engine.throttle import SlotGivenUp, judge, wal_limit
from restructure.errors import PlanError
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.plan.model import Throttle
from restructure.ports import StreamLag
from restructure.postgres.connect import connect
from restructure.runner import Runner
from tests.pipeline.moments import Gate, Passings, assert_swapped_whole, eventually, value
from tests.pipeline.tool import Tool, leftovers, run_to_live
from tests.workload import PLAN, seed

ITEMS = PLAN.format(name="items").replace("workers: 2", "workers: 1")
MEGABYTE = 1 << 20
CHUNKS = "SELECT count(*) FROM restructure.chunk"
SPOOLED = "SELECT count(*) FROM restructure.spool_items"


@pytest.fixture
def items(connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> psycopg.Connection:
    """A table that is copied in several chunks."""
    monkeypatch.setattr(copier, "_FIRST_CHUNK", 2)
    seed(connection, 3_000)
    return connection


@pytest.fixture
def old(database: str) -> Iterator[psycopg.Connection]:
    """A transaction that keeps the slot's restart point, and so the WAL after it, while open."""
    with psycopg.connect(database) as session:
        yield session


def begin(session: psycopg.Connection) -> None:
    """Begin a transaction for decoding, which knows of none before it has written."""
    session.execute("SELECT pg_logical_emit_message(true, 'old', '')")


def look_again(tool: Tool) -> None:
    """Until the tool has looked about twice more: whoever was free to work has worked by then."""
    seen = len(tool.progress)
    tool.until(lambda: len(tool.progress) >= seen + 2)


def fill_wal(session: psycopg.Connection, segments: int) -> None:
    for _ in range(segments):
        session.execute("SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()")


def test_the_query_holds_the_copy_until_it_lets_go(
    database: str, items: psycopg.Connection
) -> None:
    items.execute("CREATE TABLE busy (level numeric)")
    items.execute("INSERT INTO busy VALUES (0)")
    plan = ITEMS + "throttle: {query: SELECT level FROM busy, query_limit: 10}\n"
    with Gate("copy.chunk") as gate, Tool(database, plan) as tool:
        tool.until(lambda: gate.reached)
        items.execute("UPDATE busy SET level = 10.5")
        tool.until(lambda: any(p.throttled is not None for _, p in tool.progress))
        gate.open()
        look_again(tool)
        assert value(items, CHUNKS) == 1, "the copy went on"
        said = tool.progress[-1][1].throttled
        assert said == "throttle.query returned 10.5, more than 10"
        items.execute("UPDATE busy SET level = 10")
        assert tool.finish().phase == Phase.LIVE
    assert_swapped_whole(items)


def test_a_query_that_fails_is_an_error_of_the_plan(
    database: str, items: psycopg.Connection
) -> None:
    plan = ITEMS + "throttle: {query: SELECT level FROM nowhere}\n"
    with Tool(database, plan, Wish(stay=True)) as tool, pytest.raises(PlanError, match="nowhere"):
        tool.finish()


@pytest.mark.parametrize(
    ("query", "limit", "hold"),
    [
        ("SELECT true", None, "throttle.query says so"),
        ("SELECT false", None, None),
        ("SELECT NULL::boolean", None, None),
        ("SELECT 1 WHERE false", None, None),
        ("SELECT 7", 6.5, "throttle.query returned 7, more than 6.5"),
        ("SELECT 6.5", 6.5, None),
        ("SELECT 7.25::float8", 7, "throttle.query returned 7.25, more than 7"),
    ],
)
def test_the_query_answers_with_a_boolean_or_a_number(
    database: str, query: str, limit: float | None, hold: str | None
) -> None:
    with connect(database) as session:
        assert (
            judge(session, Throttle(query=query, query_limit=limit), StreamLag(0, 0)).hold == hold
        )


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT 7", "no throttle.query_limit"),
        ("SELECT 'seven'", "boolean or a number"),
        ("SELECT 1 / 0", "DivisionByZero"),
        ("SELECT 'secret'::integer", "InvalidTextRepresentation"),
        ("SELEC 1", "syntax error"),
        ("CREATE TABLE made ()", "ReadOnlySqlTransaction"),
        ("SELECT true; SELECT true", "multiple commands"),
    ],
)
def test_what_the_query_may_not_be(database: str, query: str, words: str) -> None:
    limit = None if "no throttle" in words else 5.0
    with connect(database) as session, pytest.raises(PlanError, match=words) as refused:
        judge(session, Throttle(query=query, query_limit=limit), StreamLag(0, 0))
    assert "secret" not in refused.value.message


def test_a_query_without_an_answer_holds(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restructure.engine.throttle._QUERY_TIMEOUT", "50ms")
    with connect(database) as session:
        held = judge(session, Throttle(query="SELECT pg_sleep(60) IS NULL"), StreamLag(0, 0)).hold
        assert held == "throttle.query did not answer within 50ms"
        assert value(session, "SHOW statement_timeout") == "0"


def test_the_slot_is_given_up_at_three_times_the_wal_that_slows() -> None:
    assert wal_limit(Throttle(wal_retained=None)) is None
    assert wal_limit(Throttle(wal_retained=5)) == 15
    assert wal_limit(Throttle(wal_retained=5, wal_limit=8)) == 8


def test_retained_wal_slows_the_copy_and_does_not_stop_it(
    database: str, items: psycopg.Connection, old: psycopg.Connection
) -> None:
    plan = ITEMS + "throttle: {wal_retained: 20MB, wal_limit: 10GB}\n"
    with Gate("copy.chunk") as gate, Tool(database, plan) as tool:
        tool.until(lambda: gate.reached)
        begin(old)
        fill_wal(items, 3)
        tool.until(
            lambda: any("more than 20.0 MiB" in (p.throttled or "") for _, p in tool.progress)
        )
        gate.open()
        tool.wait_for("copied")
        old.rollback()
        assert tool.finish().phase == Phase.LIVE


def test_past_the_limit_the_slot_is_given_up_for_the_disks_sake(
    database: str, items: psycopg.Connection, old: psycopg.Connection
) -> None:
    plan = ITEMS + "throttle: {wal_retained: 20MB, wal_limit: 40MB}\n"
    with Tool(database, plan, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        begin(old)
        fill_wal(items, 4)
        with pytest.raises(SlotGivenUp, match=r"more than 40.0 MiB: it was dropped") as given_up:
            tool.finish()
    assert given_up.value.exit_code == 6
    assert "restructure abort items" in (given_up.value.hint or "")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
    assert value(items, slots) == 0
    old.rollback()
    Runner(database, lambda *_: None, lambda *_: None).abort("items")
    assert leftovers(database) == []
    assert run_to_live(database, ITEMS).phase == Phase.LIVE
    assert_swapped_whole(items)


def test_the_limit_holds_while_a_cutover_waits_for_its_lock(
    database: str, items: psycopg.Connection, old: psycopg.Connection
) -> None:
    plan = ITEMS + "throttle: {wal_retained: 20MB, wal_limit: 40MB}\n"
    with Tool(database, plan, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        old.execute("UPDATE items SET amount = 1 WHERE id = 5")
        items.execute("UPDATE restructure.job SET request = 'cutover'")
        tool.wait_for("cutover not yet")
        fill_wal(items, 4)
        with pytest.raises(SlotGivenUp):
            tool.finish()


def test_a_throttle_that_lets_go_lets_the_cutover_pass(
    database: str, items: psycopg.Connection
) -> None:
    items.execute("CREATE TABLE busy AS SELECT false AS now")
    plan = ITEMS + "throttle: {query: SELECT now FROM busy}\n"
    with Tool(database, plan, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        items.execute("UPDATE busy SET now = true")
        tool.until(lambda: any(p.throttled is not None for _, p in tool.progress))
        items.execute("UPDATE restructure.job SET request = 'cutover'")
        tool.not_yet("throttle.query says so")
        items.execute("UPDATE busy SET now = false")
        assert tool.finish().phase == Phase.LIVE


# -- pause


def test_a_paused_copy_stands_still_and_goes_on(database: str, items: psycopg.Connection) -> None:
    with Gate("copy.chunk") as gate, Tool(database, ITEMS) as tool:
        tool.until(lambda: gate.reached)
        items.execute("UPDATE restructure.job SET paused = true")
        tool.wait_for("paused")
        gate.open()
        items.execute("UPDATE items SET amount = 7 WHERE id = 5")
        look_again(tool)
        assert value(items, CHUNKS) == 1, "a chunk was copied during the pause"
        eventually(lambda: value(items, SPOOLED) == 1, "no WAL piles up")
        items.execute("UPDATE restructure.job SET paused = false")
        assert tool.finish().phase == Phase.LIVE
    assert_swapped_whole(items)


def test_a_long_index_build_is_cancelled_by_a_pause_and_built_after_it(
    database: str, items: psycopg.Connection
) -> None:
    """A lock stands for what makes a build long: it ends within the cancel or not at all."""
    building = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'restructure items main'"
        " AND wait_event_type = 'Lock'"
    )
    with (
        psycopg.connect(database) as holder,
        Tool(database, ITEMS, hold="index entered") as tool,
    ):
        tool.held()
        holder.execute("LOCK TABLE restructure_items.items IN ROW EXCLUSIVE MODE")
        tool.release()
        eventually(lambda: value(items, building) == 1, "the index is being built")
        items.execute("UPDATE restructure.job SET paused = true")
        tool.wait_for("paused")  # for who waits looks busy now and then, to search for deadlocks
        eventually(lambda: value(items, building) == 0, "the build is cancelled")
        holder.rollback()
        assert value(items, "SELECT indexes_built FROM restructure.job") == 0
        items.execute("UPDATE restructure.job SET paused = false")
        assert tool.finish().phase == Phase.LIVE
    assert_swapped_whole(items)


def test_a_job_paused_at_ready_applies_nothing_until_resumed(
    database: str, items: psycopg.Connection
) -> None:
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        with Gate("catchup.applied") as gate:  # or the pause could find it looking at the spool
            tool.until(lambda: gate.reached)
            items.execute("UPDATE restructure.job SET paused = true")
            tool.wait_for("paused")
        with Passings("catchup.applied") as passings:
            items.execute("UPDATE items SET amount = 7 WHERE id = 5")
            eventually(lambda: value(items, SPOOLED) == 1, "kept")
            look_again(tool)
            assert (passings.count, value(items, SPOOLED)) == (0, 1)
            items.execute("UPDATE restructure.job SET paused = false")
            passings.wait_for(2)
            eventually(lambda: value(items, SPOOLED) == 0, "gone")


# -- a standby


@pytest.fixture
def standby(server: Server) -> Iterator[str]:
    """The DSN of a physical standby of ``server``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = server.folder / f"standby-{port}"
    words = conninfo_to_dict(server.dsn)
    source = make_conninfo("", **{**words, "application_name": "reserve"})
    run = server.account.run
    folder.mkdir(mode=0o700)
    if server.account.borrowed:
        os.chown(folder, server.account.uid, server.account.gid)
    made = run(
        [server.bin / "pg_basebackup", "-D", folder, "-R", "-c", "fast", "--no-sync", "-d", source]
    )
    assert made.returncode == 0, made.stderr
    options = f"-p {port} -c config_file={server.folder / 'postgresql.conf'}"
    options += " -c wal_receiver_status_interval=1"  # the lag is known a second later at most
    control = [server.bin / "pg_ctl", "-D", folder, "-w"]
    started = run([*control, "-l", folder / "log", "-o", options, "start"])
    assert started.returncode == 0, started.stdout
    try:
        yield make_conninfo("", **{**words, "port": port})
    finally:
        run([*control, "-m", "immediate", "stop"])


def test_a_replica_that_lags_holds_the_copy(
    database: str, items: psycopg.Connection, standby: str
) -> None:
    plan = ITEMS + "throttle: {replica_lag: 1s}\n"
    lags = """
        SELECT flush_lsn >= %(lsn)s::pg_lsn AND replay_lsn < %(lsn)s::pg_lsn AND replay_lag > '1 s'
        FROM pg_stat_replication WHERE application_name = 'reserve'
    """
    with (
        psycopg.connect(standby, autocommit=True) as replica,
        Gate("copy.chunk") as gate,
        Tool(database, plan) as tool,
    ):
        tool.until(lambda: gate.reached)
        replica.execute("SELECT pg_wal_replay_pause()")
        # a paused standby lags only once there is something that it has not replayed
        items.execute("UPDATE items SET amount = 7 WHERE id = 5")
        written = {"lsn": value(items, "SELECT pg_current_wal_lsn()::text")}
        eventually(lambda: items.execute(lags, written).fetchone() == (True,), "the standby lags")
        look_again(tool)
        assert "reserve is" in str(tool.progress[-1][1].throttled)
        gate.open()
        look_again(tool)
        assert value(items, CHUNKS) == 1, "the copy went on"
        replica.execute("SELECT pg_wal_replay_resume()")
        tool.wait_for("copied")
