"""The pgoutput stream against real tables of every kind, with real transactions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from struct import pack
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from connectors.pgoutput import PgoutputStream, open_stream
from restructure.errors import OperatorNeeded, UsageError
from restructure.model.change import Batch
from restructure.model.lsn import Lsn
from restructure.model.names import Names
from restructure.model.relation import Watched
from tests.fix_server import FreshServer
from tests.stream_contract import (
    PATIENCE,
    int_key,
    keys_of,
    until,
    until_fence,
    watch,
)

NAMES = Names.of("t-stream")
Open = Callable[..., PgoutputStream]


@pytest.fixture
def follow(database: str) -> Iterator[Open]:
    """``follow(watched, sender_timeout=2)``: a stream prepared and opened."""
    made: list[PgoutputStream] = []

    def opened(watched: Watched, dsn: str = database, **options: Any) -> PgoutputStream:
        stream = open_stream(dsn, NAMES, options)
        made.append(stream)
        stream.open(watched, stream.prepare(watched))
        return stream

    yield opened
    for stream in made:
        stream.close()
        stream.drop()


def rows_of(
    connection: psycopg.Connection, watched: Watched, keys: Sequence[bytes]
) -> list[tuple[Any, ...]]:
    """Keys as PostgreSQL itself reads them: by COPY BINARY into columns of the key's types."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.type_sql))
        for column in watched.key
    )
    connection.execute(sql.SQL("CREATE TEMP TABLE spool ({})").format(columns))
    count = pack(">h", len(watched.key))
    with connection.cursor().copy("COPY spool FROM STDIN (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + pack(">ii", 0, 0))
        copy.write(b"".join(count + key for key in keys) + pack(">h", -1))
    rows = connection.execute("SELECT * FROM spool").fetchall()
    connection.execute("DROP TABLE spool")
    return rows


KEYS: dict[str, tuple[LiteralString, list[str], LiteralString, list[tuple[Any, ...]]]] = {
    "composite in another order": (
        "CREATE TABLE t (at timestamptz, filler text, id uuid, PRIMARY KEY (id, at))",
        ["id", "at"],
        "INSERT INTO t VALUES ('2024-05-06 07:08:09.123456+00', 'x',"
        " '11111111-2222-3333-4444-555555555555')",
        [
            (
                UUID("11111111-2222-3333-4444-555555555555"),
                datetime(2024, 5, 6, 7, 8, 9, 123456, UTC),
            )
        ],
    ),
    "numeric": (
        "CREATE TABLE t (id numeric PRIMARY KEY)",
        ["id"],
        "INSERT INTO t VALUES (1.00), ('NaN'), (-12345678901234567890.5)",
        [(Decimal("1.00"),), (Decimal("NaN"),), (Decimal("-12345678901234567890.5"),)],
    ),
    "enum": (
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE t (id mood PRIMARY KEY)",
        ["id"],
        "INSERT INTO t VALUES ('glad')",
        [("glad",)],
    ),
    "domain": (
        "CREATE DOMAIN positive AS bigint CHECK (value > 0);"
        " CREATE TABLE t (id positive PRIMARY KEY)",
        ["id"],
        "INSERT INTO t VALUES (9000000000)",
        [(9000000000,)],
    ),
    "composite type, array and range": (
        "CREATE TYPE pair AS (a int, b text);"
        " CREATE TABLE t (p pair, a int[], r int4range, PRIMARY KEY (p, a, r))",
        ["p", "a", "r"],
        "INSERT INTO t VALUES ((1, 'x'), '{{1,NULL}}', 'empty')",
        [],
    ),
    "text": (
        "CREATE TABLE t (id text PRIMARY KEY)",
        ["id"],
        "INSERT INTO t VALUES (''), ('ä€𝄞'), (E'tab\\tnew\\nline')",
        [("",), ("ä€𝄞",), ("tab\tnew\nline",)],
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_of_a_type_arrive_in_copy_form(
    case: str, connection: psycopg.Connection, follow: Open
) -> None:
    """What arrives is what COPY BINARY takes, and reads back as the row's key."""
    create, key, insert, expected = KEYS[case]
    connection.execute(create)
    watched = watch(connection, "t", key=key)
    stream = follow(watched)
    connection.execute(insert)
    rows = rows_of(connection, watched, list(keys_of(until_fence(stream))))
    if expected:
        assert list(map(repr, rows)) == list(map(repr, expected))
    columns = sql.SQL(", ").join(map(sql.Identifier, key))
    present = connection.execute(sql.SQL("SELECT {} FROM t").format(columns)).fetchall()
    assert sorted(map(repr, rows)) == sorted(map(repr, present))


def test_a_key_stored_out_of_line_is_taken_from_the_old_part(
    connection: psycopg.Connection, follow: Open
) -> None:
    connection.execute(
        "CREATE TABLE t (id text PRIMARY KEY, v int); ALTER TABLE t ALTER id SET STORAGE EXTERNAL"
    )
    long = "0123456789" * 250
    connection.execute("INSERT INTO t VALUES (%s, 1)", [long])
    watched = watch(connection, "t", key=["id"])
    stream = follow(watched)
    connection.execute("UPDATE t SET v = 2")
    keys = keys_of(until_fence(stream))
    assert rows_of(connection, watched, list(keys)) == [(long,)]


def test_full_identity_needs_no_column_list(connection: psycopg.Connection, follow: Open) -> None:
    connection.execute(
        "CREATE TABLE t (filler text, id int, more int[], PRIMARY KEY (id));"
        " ALTER TABLE t REPLICA IDENTITY FULL;"
        " INSERT INTO t SELECT repeat('x', 10000), g FROM generate_series(1, 3) g"
    )
    stream = follow(watch(connection, "t", key=["id"], full=True))
    connection.execute("UPDATE t SET more = '{1}' WHERE id = 1")
    connection.execute("UPDATE t SET id = 20 WHERE id = 2")
    connection.execute("DELETE FROM t WHERE id = 3")
    assert set(keys_of(until_fence(stream))) == {int_key(i) for i in (1, 2, 20, 3)}


def test_an_index_may_be_the_identity(connection: psycopg.Connection, follow: Open) -> None:
    connection.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, b int NOT NULL, a int NOT NULL, UNIQUE (a, b));"
        " ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_b_key; INSERT INTO t VALUES (1, 2, 3)"
    )
    stream = follow(watch(connection, "t", key=["a", "b"]))
    connection.execute("UPDATE t SET id = 10")
    connection.execute("UPDATE t SET b = 22")
    connection.execute("DELETE FROM t")
    keys = list(keys_of(until_fence(stream)))
    assert keys == [int_key(3) + int_key(2), int_key(3) + int_key(22)]


def test_leaves_of_a_partitioned_table(connection: psycopg.Connection, follow: Open) -> None:
    """Changes reach us from every leaf, and a truncation names the leaves it emptied."""
    connection.execute(
        "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        " CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);"
        " CREATE TABLE other (id int)"
    )
    watched = watch(connection, "t1", "t2", key=["id"])
    first, second = (relation.oid for relation in watched.relations)
    stream = follow(watched)
    connection.execute("INSERT INTO t VALUES (1), (11)")
    connection.execute("UPDATE t SET id = 12 WHERE id = 1")
    assert set(keys_of(until_fence(stream))) == {int_key(i) for i in (1, 11, 12)}
    for statement, emptied in (
        ("TRUNCATE t2", [second]),
        ("TRUNCATE t", [first, second]),
        ("TRUNCATE t1, other", [first]),
        ("TRUNCATE other", []),
    ):
        connection.execute(statement)
        assert sorted(_truncated(until_fence(stream))) == emptied


def test_prepared_transactions_arrive_when_they_commit(
    connection: psycopg.Connection, follow: Open
) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    stream = follow(watch(connection, "t", key=["id"]))
    for action in ("COMMIT", "ROLLBACK"):
        connection.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'p'")
        assert not keys_of(until_fence(stream))
        connection.execute(sql.SQL("{} PREPARED 'p'").format(sql.SQL(action)))
        assert set(keys_of(until_fence(stream))) == ({int_key(1)} if action == "COMMIT" else set())
        connection.execute("DELETE FROM t")
        until_fence(stream)


# -- large transactions, streamed before they commit


@pytest.fixture
def small_memory(connection: psycopg.Connection) -> None:
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'").format(
            sql.Identifier(connection.info.dbname)
        )
    )
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")


@pytest.fixture
def writer(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database) as session:
        yield session
        session.rollback()


def _fill(session: psycopg.Connection, first: int, last: int) -> None:
    session.execute("INSERT INTO t SELECT g FROM generate_series(%s::int, %s) g", [first, last])


def _truncated(batches: Sequence[Batch]) -> list[int]:
    return [t.relation for batch in batches for s in batch.segments for t in s.truncations]


def _early(stream: PgoutputStream, count: int) -> list[Batch]:
    """Batches that arrive before the commit, until so many keys came."""
    deadline = time.monotonic() + PATIENCE
    batches: list[Batch] = []
    while len(keys_of(batches)) < count:
        assert time.monotonic() < deadline, "keys did not arrive before the commit"
        batch = stream.poll(0.5, 1000)
        if batch is not None:
            assert batch.key_count <= 1000
            batches.append(batch)
    return batches


@pytest.mark.usefixtures("small_memory")
def test_keys_of_a_large_transaction_come_before_it_commits(
    connection: psycopg.Connection, writer: psycopg.Connection, follow: Open
) -> None:
    stream = follow(watch(connection, "t", key=["id"]))
    _fill(writer, 1, 20_000)
    early = _early(stream, 10_000)
    assert {origin.committed for origin in keys_of(early).values()} == {None}
    between = until_fence(stream)
    writer.commit()
    late = until_fence(stream)
    assert set(keys_of([*early, *between, *late])) == {int_key(i) for i in range(1, 20_001)}
    assert not stream.reached(between[-1].position, late[-1].position)
    (xid,) = {origin.xid for origin in keys_of(early).values()}
    row = connection.execute("SELECT xmin::text::bigint FROM t LIMIT 1").fetchone()
    assert row is not None
    assert xid % (1 << 32) == row[0]


@pytest.mark.usefixtures("small_memory")
def test_large_transactions_with_savepoints_and_rollbacks(
    connection: psycopg.Connection, writer: psycopg.Connection, follow: Open
) -> None:
    """All that committed arrives with the top-level transaction; the rest may, and is harmless."""
    stream = follow(watch(connection, "t", key=["id"]))
    top = writer.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    _fill(writer, 1, 5000)
    with writer.transaction():
        _fill(writer, 5001, 10_000)
    with writer.transaction(force_rollback=True):
        _fill(writer, 10_001, 15_000)
    _fill(writer, 15_001, 20_000)
    early = _early(stream, 5000)
    writer.commit()
    _fill(writer, 20_001, 30_000)
    early += until_fence(stream)
    writer.rollback()
    keys = keys_of([*early, *until_fence(stream)])
    committed = {int_key(i) for i in range(1, 20_001) if not 10_000 < i <= 15_000}
    assert committed <= set(keys)
    assert top is not None
    assert {keys[key].xid for key in committed} == {top[0]}


@pytest.mark.usefixtures("small_memory")
def test_a_large_transaction_that_truncates_comes_again_in_order(
    connection: psycopg.Connection, writer: psycopg.Connection, follow: Open
) -> None:
    """A truncation must not be handed out before its commit, nor after keys that follow it."""
    watched = watch(connection, "t", key=["id"])
    stream = follow(watched)
    _fill(connection, 1, 3)
    writer.execute("TRUNCATE t")
    _fill(writer, 1, 20_000)
    batches = _early(stream, 10_000)
    assert not _truncated(batches)
    writer.commit()
    batches = until_fence(stream)
    assert _truncated(batches) == [watched.relations[0].oid]
    segments = [segment for batch in batches for segment in batch.segments]
    place = next(i for i, segment in enumerate(segments) if segment.truncations)
    after = {key for segment in segments[place:] for key in segment.keys}
    assert after == {int_key(i) for i in range(1, 20_001)}
    # Afterwards large transactions are streamed early again.
    _fill(writer, 30_001, 50_000)
    assert _early(stream, 10_000)
    writer.rollback()


@pytest.mark.usefixtures("small_memory")
def test_a_truncation_rolled_back_in_a_large_transaction_is_none(
    connection: psycopg.Connection, writer: psycopg.Connection, follow: Open
) -> None:
    stream = follow(watch(connection, "t", key=["id"]))
    with writer.transaction(force_rollback=True):
        writer.execute("TRUNCATE t")
        _fill(writer, 1, 20_000)
    _fill(writer, 1, 20_000)
    writer.commit()
    batches = until_fence(stream)
    assert not _truncated(batches)
    assert set(keys_of(batches)) >= {int_key(i) for i in range(1, 20_001)}


# -- positions


def test_an_idle_tables_slot_advances_with_a_busy_second_database(
    connection: psycopg.Connection, follow: Open, database: str
) -> None:
    """Only keepalives tell the position then, and it is never confirmed before it is stored."""
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    stream = follow(watch(connection, "t", key=["id"]), sender_timeout=2)
    words = psycopg.conninfo.conninfo_to_dict(database)
    stop = threading.Event()

    def write() -> None:
        dsn = psycopg.conninfo.make_conninfo("", **{**words, "dbname": "postgres"})
        with psycopg.connect(dsn, autocommit=True) as busy:
            while not stop.wait(0.005):
                busy.execute("SELECT txid_current()")

    busy = threading.Thread(target=write)
    busy.start()
    stored = stream.fence()
    try:
        until(stream, stored)
        deadline = time.monotonic() + PATIENCE
        advanced = 0
        while advanced < 3:
            assert time.monotonic() < deadline, "the idle stream did not advance"
            batch = stream.poll(0.2, 10)
            confirmed = connection.execute(
                "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s",
                [NAMES.slot],
            ).fetchone()
            assert confirmed is not None
            assert Lsn.parse(confirmed[0]) <= Lsn.parse(stored.split("/", 3)[3])
            if batch is not None:
                assert batch.empty
                stored = batch.position
                stream.confirm(stored)
                advanced += 1
    finally:
        stop.set()
        busy.join()


def test_confirming_what_was_not_delivered_is_refused(
    connection: psycopg.Connection, follow: Open
) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    stream = follow(watch(connection, "t", key=["id"]))
    with pytest.raises(ValueError, match="not delivered"):
        stream.confirm(stream.fence())


def test_a_reader_that_only_keeps_alive_is_not_given_up(
    connection: psycopg.Connection, follow: Open
) -> None:
    """wal_sender_timeout ends a silent reader, also while the server's sending is blocked."""
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    timeout = 4.0  # on a busy machine we ourselves may come to nothing for a second or two
    stream = follow(watch(connection, "t", key=["id"]), sender_timeout=timeout)
    before = _sender(connection)
    insert = "INSERT INTO t SELECT generate_series(1, 100000)"
    filling = threading.Thread(target=connection.execute, args=[insert])
    filling.start()
    until_time = 0.0
    while filling.is_alive() or time.monotonic() < until_time:
        if filling.is_alive():
            until_time = time.monotonic() + 1.5 * timeout
        stream.keepalive()
        time.sleep(0.05)
    filling.join()
    assert _sender(connection) == before
    assert len(keys_of(until_fence(stream))) == 100_000


def _sender(connection: psycopg.Connection) -> int | None:
    row = connection.execute(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [NAMES.slot]
    ).fetchone()
    return row[0] if row else None


def test_a_reader_that_became_a_synchronous_standby_stops(fresh_server: FreshServer) -> None:
    server = fresh_server(synchronous_standby_names="*", synchronous_commit="local")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY)")
        watched = watch(session, "t", key=["id"])
        stream = open_stream(server.dsn, NAMES, {})
        stream.open(watched, stream.prepare(watched))
        until_fence(stream)
        deadline = time.monotonic() + PATIENCE
        with pytest.raises(OperatorNeeded, match="synchronous standby"):
            while time.monotonic() < deadline:
                stream.lag()
                stream.poll(0.1, 10)
        stream.drop()


# -- before the start


def test_a_key_without_a_binary_form_is_refused(
    connection: psycopg.Connection, database: str
) -> None:
    connection.execute("CREATE TABLE t (a int, b aclitem, PRIMARY KEY (a)); ")
    watched = watch(connection, "t", key=["a", "b"])
    with pytest.raises(OperatorNeeded, match=r"without a binary form.*b \(aclitem\)"):
        open_stream(database, NAMES, {}).prepare(watched)
    assert connection.execute("SELECT FROM pg_publication").fetchall() == []


def test_unknown_options_are_refused() -> None:
    for options in ({"slot_timout": 1}, {"slot_timeout": "1"}, {"sender_timeout": 0}):
        with pytest.raises(UsageError):
            open_stream("", NAMES, options)
    open_stream("", NAMES, {"kind": "pgoutput", "slot_timeout": 5, "sender_timeout": 2.5})
