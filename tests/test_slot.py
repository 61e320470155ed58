"""Slots: made without leaving halves behind, told from other people's, dropped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest

from restructure.errors import Interrupted, NotNow, OperatorNeeded
from restructure.postgres.connect import connect, connect_replication
from restructure.postgres.new_slot import blockers, create_slot
from restructure.postgres.settled import Holder
from restructure.postgres.slot import drop_slot, find_slot, read_slot
from tests.fix_server import FreshServer
from tests.stream_contract import PATIENCE

JOB = "t-slot"
SLOT = "restructure_t_slot"


@pytest.fixture
def watch(database: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database, job=JOB)) as session:
        yield session


@pytest.fixture
def elsewhere(server: object, database: str) -> Iterator[psycopg.Connection]:
    """A transaction in another database of the cluster that has an id."""
    words = {**psycopg.conninfo.conninfo_to_dict(database), "dbname": "postgres"}
    with psycopg.connect(
        psycopg.conninfo.make_conninfo("", **words), application_name="old report"
    ) as session:
        session.execute("SELECT pg_current_xact_id()")
        yield session
        session.rollback()


def _nothing_half_made(watch: psycopg.Connection) -> None:
    """The slot is gone at once; its walsender leaves the list of sessions a moment later."""
    assert read_slot(watch, SLOT) is None
    deadline = time.monotonic() + PATIENCE
    while watch.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = %s",
        [f"restructure {JOB} slot"],
    ).fetchall():
        assert time.monotonic() < deadline


def test_a_slot_starts_where_it_says(watch: psycopg.Connection, database: str) -> None:
    before = watch.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    start = create_slot(database, SLOT, job=JOB, watch=watch)
    facts = read_slot(watch, SLOT)
    assert facts is not None
    assert before is not None
    assert facts.confirmed_flush == start
    assert (facts.plugin, facts.here, facts.temporary) == ("pgoutput", True, False)
    assert (facts.usable, facts.foreign, facts.active_pid) == (True, None, None)
    assert facts.restart is not None
    assert facts.restart <= start
    watch.execute("SELECT pg_logical_emit_message(true, 'x', repeat('x', 100000))")
    later = read_slot(watch, SLOT)
    assert later is not None
    assert later.lag_bytes > 100_000
    assert later.retained_bytes >= later.lag_bytes
    found = find_slot(watch, SLOT, job=JOB)
    assert found is not None
    # The server may write WAL of its own between two looks.
    sizes = {"retained_bytes": 0, "lag_bytes": 0}
    assert replace(found, **sizes) == replace(later, **sizes)


def test_another_databases_transaction_is_named(
    watch: psycopg.Connection, database: str, elsewhere: psycopg.Connection
) -> None:
    told: list[Sequence[Holder]] = []
    with pytest.raises(NotNow) as late:
        create_slot(database, SLOT, job=JOB, watch=watch, timeout=0.5, waiting=told.append)
    pid = elsewhere.info.backend_pid
    assert f"pid {pid} (postgres on postgres, old report, for" in late.value.message
    assert "idle in transaction" in late.value.message
    assert late.value.hint
    assert [holder.pid for holder in told[0]] == [pid]
    _nothing_half_made(watch)


def test_a_prepared_transaction_is_named(watch: psycopg.Connection, database: str) -> None:
    watch.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
    with pytest.raises(NotNow, match="prepared transaction 'forgotten' \\(postgres on"):
        create_slot(database, SLOT, job=JOB, watch=watch, timeout=0.5)
    _nothing_half_made(watch)
    watch.execute("ROLLBACK PREPARED 'forgotten'")
    create_slot(database, SLOT, job=JOB, watch=watch)


def test_a_slot_is_had_as_soon_as_the_blocker_ends(
    watch: psycopg.Connection, database: str, elsewhere: psycopg.Connection
) -> None:
    made = threading.Event()

    def end_when_waited_for() -> None:
        with psycopg.connect(database, autocommit=True) as session:
            while not session.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                assert not made.is_set()
        elsewhere.rollback()

    ender = threading.Thread(target=end_when_waited_for)
    ender.start()
    try:
        create_slot(database, SLOT, job=JOB, watch=watch, timeout=PATIENCE)
    finally:
        made.set()
        ender.join()
    assert find_slot(watch, SLOT, job=JOB) is not None


@pytest.mark.usefixtures("elsewhere")
def test_stopping_while_it_waits_leaves_nothing(
    watch: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def stop_at_the_second_call(holders: Sequence[Holder]) -> None:
        calls.append(holders)
        if len(calls) == 2:
            raise Interrupted("stopped")

    monkeypatch.setattr("restructure.postgres.new_slot._TELL_EVERY", 0.1)
    with pytest.raises(Interrupted):
        create_slot(
            database, SLOT, job=JOB, watch=watch, timeout=60, waiting=stop_at_the_second_call
        )
    _nothing_half_made(watch)


def test_what_a_killed_process_left_half_made_is_found_and_ended(
    watch: psycopg.Connection, database: str, elsewhere: psycopg.Connection
) -> None:
    program = (
        "import sys; from restructure.postgres import connect, new_slot;"
        f"new_slot.create_slot(sys.argv[1], '{SLOT}', job='{JOB}',"
        f" watch=connect.connect(sys.argv[1], job='{JOB}'), timeout=600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, database]) as process:
        deadline = time.monotonic() + PATIENCE
        while (facts := read_slot(watch, SLOT)) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    # The server seldom notices by itself: the slot stays, active and without a position.
    facts = read_slot(watch, SLOT)
    assert facts is None or facts.confirmed_flush is None
    assert find_slot(watch, SLOT, job=JOB) is None
    _nothing_half_made(watch)
    elsewhere.rollback()
    create_slot(database, SLOT, job=JOB, watch=watch)


def test_a_slot_of_another_plugin_or_kind_is_never_touched(watch: psycopg.Connection) -> None:
    watch.execute("SELECT pg_create_physical_replication_slot(%s)", [SLOT])
    try:
        with pytest.raises(OperatorNeeded, match="uses physical replication: it is not ours"):
            find_slot(watch, SLOT, job=JOB)
        drop_slot(watch, SLOT, job=JOB)
        assert read_slot(watch, SLOT) is not None
    finally:
        watch.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])


def test_a_slot_of_another_database_is_never_touched(
    watch: psycopg.Connection, elsewhere: psycopg.Connection
) -> None:
    elsewhere.rollback()
    elsewhere.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])
    elsewhere.commit()
    try:
        with pytest.raises(OperatorNeeded, match="belongs to database postgres"):
            find_slot(watch, SLOT, job=JOB)
        drop_slot(watch, SLOT, job=JOB)
        assert read_slot(watch, SLOT) is not None
    finally:
        elsewhere.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
        elsewhere.commit()


def test_a_slot_that_somebody_else_reads_is_refused(
    watch: psycopg.Connection, database: str
) -> None:
    create_slot(database, SLOT, job=JOB, watch=watch)
    watch.execute("CREATE PUBLICATION p")
    start = f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names 'p')"
    with closing(connect_replication(database, job=f"{JOB}-2", role="stream")) as other:
        other.pgconn.exec_(start.encode())
        with pytest.raises(OperatorNeeded, match=f"in use by pid {other.info.backend_pid}"):
            find_slot(watch, SLOT, job=JOB)
        with pytest.raises(NotNow, match=f"in use by pid {other.info.backend_pid}"):
            drop_slot(watch, SLOT, job=JOB, timeout=0.3)


def test_our_own_reader_does_not_keep_us_from_dropping(
    watch: psycopg.Connection, database: str
) -> None:
    create_slot(database, SLOT, job=JOB, watch=watch)
    watch.execute("CREATE PUBLICATION p")
    start = f"START_REPLICATION SLOT {SLOT} LOGICAL 0/0 (proto_version '1', publication_names 'p')"
    with closing(connect_replication(database, job=JOB, role="stream")) as own:
        own.pgconn.exec_(start.encode())
        drop_slot(watch, SLOT, job=JOB)
    assert read_slot(watch, SLOT) is None
    drop_slot(watch, SLOT, job=JOB)


def test_a_name_taken_in_the_same_moment_is_left_alone(
    watch: psycopg.Connection, database: str
) -> None:
    create_slot(database, SLOT, job=JOB, watch=watch)
    with pytest.raises(OperatorNeeded, match="already exists"):
        create_slot(database, SLOT, job=JOB, watch=watch)
    assert read_slot(watch, SLOT) is not None


def test_a_server_without_a_free_slot_says_so(fresh_server: FreshServer) -> None:
    server = fresh_server(max_replication_slots="1")
    with closing(connect(server.dsn, job=JOB)) as session:
        session.execute("SELECT pg_create_physical_replication_slot('taken')")
        with pytest.raises(OperatorNeeded, match="all replication slots are in use") as refused:
            create_slot(server.dsn, SLOT, job=JOB, watch=session)
        assert refused.value.hint
        assert "max_replication_slots" in refused.value.hint


def test_blockers_are_seen_by_a_role_without_privileges(
    connection: psycopg.Connection, database: str, elsewhere: psycopg.Connection
) -> None:
    connection.execute("CREATE ROLE t_slot_plain LOGIN PASSWORD 'plain'")
    plain = psycopg.conninfo.make_conninfo(database, user="t_slot_plain", password="plain")
    with psycopg.connect(plain, autocommit=True) as session:
        assert [holder.pid for holder in blockers(session)] == [elsewhere.info.backend_pid]
