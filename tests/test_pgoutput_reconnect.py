"""The pgoutput stream when connections, servers, slots and publications fail it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

from connectors.pgoutput import PgoutputStream, open_stream
from restructure.errors import OperatorNeeded, Retryable, StreamGap
from restructure.model.change import Batch
from restructure.model.lsn import Lsn
from restructure.model.names import Names
from restructure.model.relation import Watched
from restructure.postgres import reader
from restructure.postgres.connect import connect_replication
from restructure.postgres.position import Position
from tests.fix_proxy import Proxy
from tests.fix_server import FreshServer
from tests.stream_contract import PATIENCE, int_key, keys_of, until_fence, watch

NAMES = Names.of("t-reconnect")
Make = Callable[..., PgoutputStream]


@pytest.fixture
def make(database: str) -> Iterator[Make]:
    """``make(dsn)``: a stream of the one job of this test, which is dropped in the end."""
    made: list[PgoutputStream] = []

    def stream(dsn: str = database, **options: Any) -> PgoutputStream:
        made.append(open_stream(dsn, NAMES, options))
        return made[-1]

    yield stream
    for stream_ in made:
        stream_.close()
    open_stream(database, NAMES, {}).drop()


@pytest.fixture
def watched(connection: psycopg.Connection) -> Watched:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    return watch(connection, "t", key=["id"])


def _insert(connection: psycopg.Connection, first: int, last: int) -> set[bytes]:
    connection.execute("INSERT INTO t SELECT generate_series(%s::int, %s)", [first, last])
    return {int_key(i) for i in range(first, last + 1)}


def _truncations(batches: list[Batch]) -> int:
    return sum(len(segment.truncations) for batch in batches for segment in batch.segments)


def _end_reader(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "SELECT active_pid, pg_terminate_backend(active_pid) FROM pg_replication_slots"
        " WHERE slot_name = %s AND active_pid IS NOT NULL",
        [NAMES.slot],
    ).fetchone()
    assert row is not None
    pid: int = row[0]
    return pid


def _gone(connection: psycopg.Connection, pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_that_was_ended_is_replaced(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    """Nothing is missing, and what was handed out with its position does not come again."""
    stream = make()
    stream.open(watched, stream.prepare(watched))
    wanted = _insert(connection, 1, 10)
    connection.execute("TRUNCATE t")
    batches = until_fence(stream)
    for first in (101, 201, 301):
        wanted |= _insert(connection, first, first + 50)
        _gone(connection, _end_reader(connection))
        wanted |= _insert(connection, first + 51, first + 90)
        batches += until_fence(stream)
    assert set(keys_of(batches)) == wanted
    assert _truncations(batches) == 1


def test_a_reader_ended_within_a_transaction_gets_the_rest(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    stream = make()
    stream.open(watched, stream.prepare(watched))
    wanted = _insert(connection, 1, 200_000)
    first = stream.poll(PATIENCE, 1000)
    while first is not None and first.empty:  # a position alone, for which time had come
        first = stream.poll(PATIENCE, 1000)
    assert first is not None
    assert 0 < first.key_count <= 1000, "a slow server may have sent less, never all"
    _end_reader(connection)
    batches = [first, *until_fence(stream)]
    assert set(keys_of(batches)) == wanted


def test_a_cut_network_is_got_over(
    connection: psycopg.Connection, watched: Watched, make: Make, proxy: Proxy
) -> None:
    stream = make(proxy.dsn)
    stream.open(watched, stream.prepare(watched))
    wanted = _insert(connection, 1, 10)
    batches = until_fence(stream)
    wanted |= _insert(connection, 11, 20)
    proxy.refuse()
    proxy.cut()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        batch = stream.poll(0.1, 100)
        batches += [batch] if batch else []
    stream.keepalive()
    wanted |= _insert(connection, 21, 30)
    proxy.heal()
    batches += until_fence(stream)
    assert set(keys_of(batches)) == wanted
    stream.confirm(batches[-1].position)
    assert stream.lag().healthy


def test_a_server_that_stays_away_is_reported(
    connection: psycopg.Connection,
    watched: Watched,
    make: Make,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = make(proxy.dsn)
    stream.open(watched, stream.prepare(watched))
    proxy.refuse()
    proxy.cut()
    deadline = time.monotonic() + PATIENCE
    with monkeypatch.context() as impatient:
        impatient.setattr(reader, "PATIENCE", 0.5)
        with pytest.raises(Retryable, match="could not be had back"):
            while time.monotonic() < deadline:
                stream.poll(0.1, 100)
    # The old reader may still hold the slot, which takes more than one try.
    proxy.heal()
    wanted = _insert(connection, 1, 3)
    assert set(keys_of(until_fence(stream))) == wanted


def test_a_deaf_network_is_given_up(
    connection: psycopg.Connection,
    watched: Watched,
    make: Make,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection stays open and nothing arrives: silence itself must be noticed."""
    # Not shorter: a server that gives us up before the network is deaf leaves no silence to hear.
    stream = make(proxy.dsn, sender_timeout=1)
    stream.open(watched, stream.prepare(watched))
    until_fence(stream)
    proxy.deafen()
    deadline = time.monotonic() + PATIENCE
    while "nothing was heard" not in caplog.text:
        assert time.monotonic() < deadline, "the silent connection was not given up"
        stream.poll(0.1, 10)
    proxy.heal()
    wanted = _insert(connection, 1, 3)
    assert set(keys_of(until_fence(stream))) == wanted


def test_a_reader_left_behind_by_ourselves_is_ended(
    connection: psycopg.Connection,
    watched: Watched,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process was killed and its half-open session still holds the slot."""
    monkeypatch.setattr(reader, "PATIENCE", 30.0)
    left, fresh = make(sender_timeout=600), make()
    position = left.prepare(watched)
    left.open(watched, position)
    wanted = _insert(connection, 1, 3)
    fresh.open(watched, position)
    assert set(keys_of(until_fence(fresh))) == wanted


def test_a_reader_that_is_not_ours_is_never_ended(
    connection: psycopg.Connection,
    watched: Watched,
    make: Make,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "PATIENCE", 0.5)
    stream = make()
    position = stream.prepare(watched)
    with closing(connect_replication(database, job="somebody", role="else")) as other:
        other.pgconn.exec_(
            f"START_REPLICATION SLOT {NAMES.slot} LOGICAL 0/0"
            f" (proto_version '1', publication_names '{NAMES.publication}')".encode()
        )
        pid = other.info.backend_pid
        with pytest.raises(Retryable, match=rf"in use by pid {pid} \(restructure somebody else\)"):
            stream.open(watched, position)
        alive = connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
        assert alive.fetchone() is not None


# -- gaps


def _stored(stream: PgoutputStream, watched: Watched, connection: psycopg.Connection) -> str:
    """A position that was reached and confirmed, with the stream closed and the slot free."""
    stream.open(watched, stream.prepare(watched))
    position = until_fence(stream)[-1].position
    stream.confirm(position)
    stream.close()
    deadline = time.monotonic() + PATIENCE
    while connection.execute(
        "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", [NAMES.slot]
    ).fetchone():
        assert time.monotonic() < deadline, "the slot was not let go"
    return position


def test_a_slot_made_anew_by_hand_is_a_gap(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    stream = make()
    position = _stored(stream, watched, connection)
    connection.execute("SELECT pg_drop_replication_slot(%s)", [NAMES.slot])
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [NAMES.slot])
    with pytest.raises(StreamGap, match="made anew or moved"):
        stream.open(watched, position)


def test_a_slot_moved_by_hand_is_a_gap(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    stream = make()
    position = _stored(stream, watched, connection)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [NAMES.slot])
    with pytest.raises(StreamGap, match="beyond our"):
        stream.open(watched, position)


def test_a_slot_moved_while_we_were_cut_off_is_a_gap(
    connection: psycopg.Connection, watched: Watched, make: Make, proxy: Proxy
) -> None:
    stream = make(proxy.dsn)
    stream.open(watched, stream.prepare(watched))
    until_fence(stream)
    proxy.refuse()
    proxy.cut()
    stream.poll(0.1, 10)
    connection.execute("INSERT INTO t VALUES (1)")
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline
        try:
            connection.execute(
                "SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [NAMES.slot]
            )
            break
        except psycopg.errors.ObjectInUse:
            continue
    proxy.heal()
    for _ in range(2):  # it stays refused
        with pytest.raises(StreamGap):
            until_fence(stream)


def test_a_slot_of_another_kind_or_place_is_a_gap(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    stream = make()
    position = _stored(stream, watched, connection)
    connection.execute("SELECT pg_drop_replication_slot(%s)", [NAMES.slot])
    connection.execute("SELECT pg_create_physical_replication_slot(%s, true)", [NAMES.slot])
    try:
        with pytest.raises(StreamGap, match="uses physical replication"):
            stream.open(watched, position)
    finally:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [NAMES.slot])


@pytest.mark.parametrize("field", [0, 1])
def test_another_cluster_or_timeline_is_a_gap(
    field: int, connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    stream = make()
    parts = _stored(stream, watched, connection).split("/", 3)
    parts[field] = "77"
    with pytest.raises(StreamGap, match="another cluster or timeline"):
        stream.open(watched, "/".join(parts))
    assert not stream.reached("/".join(parts), stream.prepare(watched))


def test_a_lost_slot_is_a_gap(fresh_server: FreshServer) -> None:
    """The server gave up the slot's WAL (max_slot_wal_keep_size)."""
    server = fresh_server(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bulk (b text)")
        watched = watch(session, "t", key=["id"])
        stream = open_stream(server.dsn, NAMES, {})
        position = _stored(stream, watched, session)
        deadline = time.monotonic() + PATIENCE
        while stream.lag().healthy:
            assert time.monotonic() < deadline
            session.execute(
                "INSERT INTO bulk SELECT repeat('x', 2000) FROM generate_series(1, 9000)"
            )
            session.execute("SELECT pg_switch_wal()")
            session.execute("CHECKPOINT")
        assert "lost" in stream.lag().reason
        with pytest.raises(StreamGap, match="lost"):
            stream.open(watched, position)
        # Setting up again makes it anew.
        stream.open(watched, stream.prepare(watched))
        assert stream.lag().healthy
        stream.drop()


def test_what_a_crash_made_the_slot_forget_is_not_delivered_twice(
    fresh_server: FreshServer,
) -> None:
    """A slot's position is written at checkpoints: after a crash it stands where it stood."""
    server = fresh_server(checkpoint_timeout="1h")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY)")
        watched = watch(session, "t", key=["id"])
        stream = open_stream(server.dsn, NAMES, {})
        start = stream.prepare(watched)
        stream.open(watched, start)
        session.execute("CHECKPOINT")
        _insert(session, 1, 10)
        session.execute("TRUNCATE t")
        batches = until_fence(stream)
        assert _truncations(batches) == 1
        stored = batches[-1].position
        stream.close()
    server.restart("immediate")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        row = session.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots"
        ).fetchone()
        assert row is not None
        assert Lsn.parse(row[0]) < Position.parse(stored).lsn
        again = open_stream(server.dsn, NAMES, {})
        again.open(watched, stored)
        wanted = _insert(session, 11, 12)
        batches = until_fence(again)
        assert set(keys_of(batches)) == wanted
        assert _truncations(batches) == 0
        again.drop()


# -- the publication


def test_a_publication_dropped_while_reading_stops_the_stream(
    connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    """PostgreSQL 15 ends the stream, 18 silently delivers nothing more: lag looks after that."""
    stream = make()
    stream.open(watched, stream.prepare(watched))
    until_fence(stream)
    connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(NAMES.publication)))
    connection.execute("INSERT INTO t VALUES (1)")
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(OperatorNeeded, match="publication"):
        while time.monotonic() < deadline:
            stream.poll(0.1, 10)
            assert not stream.lag().healthy
    with pytest.raises(OperatorNeeded, match="publication"):
        stream.poll(0.1, 10)


@pytest.mark.parametrize("statement", ["SET (publish = 'insert')", "ADD TABLE t2", "DROP TABLE t"])
def test_a_publication_changed_in_between_is_a_gap(
    statement: str, connection: psycopg.Connection, watched: Watched, make: Make
) -> None:
    connection.execute("CREATE TABLE t2 (id int PRIMARY KEY)")
    stream = make()
    position = _stored(stream, watched, connection)
    connection.execute(
        sql.SQL("ALTER PUBLICATION {} {}").format(
            sql.Identifier(NAMES.publication), sql.SQL(statement)
        )
    )
    with pytest.raises(StreamGap, match="dropped or changed"):
        stream.open(watched, position)
