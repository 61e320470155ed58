"""The barrier, the gate and old snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg import sql

from connectors.pgoutput import open_stream
from restructure.errors import Interrupted, NotNow
from restructure.model.names import Names
from restructure.postgres.connect import connect
from restructure.postgres.settled import Holder, gate, old_snapshots, wait_for_writers, writers
from tests.pipeline.moments import Ice
from tests.stream_contract import PATIENCE, int_key, keys_of, until_fence, watch


@pytest.fixture
def session(database: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database, job="t-settled")) as made:
        made.execute("CREATE TABLE t (id int PRIMARY KEY)")
        yield made


@pytest.fixture
def client(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, application_name="shop") as made:
        yield made
        made.rollback()


def _oid(session: psycopg.Connection, table: str = "t") -> int:
    return watch(session, table, key=[]).relations[0].oid


def test_writers_are_those_who_hold_a_writing_lock(
    session: psycopg.Connection, client: psycopg.Connection, database: str
) -> None:
    session.execute("CREATE TABLE other (id int)")
    oid = _oid(session)
    for statement, writes in (
        ("SELECT FROM t", False),
        ("SELECT FROM t FOR UPDATE", False),
        ("ANALYZE t", False),
        ("LOCK TABLE t IN SHARE MODE", False),
        ("INSERT INTO other VALUES (1)", False),
        ("INSERT INTO t VALUES (1)", True),
        ("UPDATE t SET id = 2 WHERE false", True),
        ("TRUNCATE t", True),
    ):
        client.execute(statement)
        found = list(writers(session, [oid]).values())
        assert bool(found) == writes, statement
        assert all(holder.pid == client.info.backend_pid for holder in found)
        client.rollback()


def test_the_barrier_waits_for_those_who_were_there(
    session: psycopg.Connection, client: psycopg.Connection, database: str
) -> None:
    """One who comes later does not prolong it."""
    client.execute("INSERT INTO t VALUES (1)")
    with psycopg.connect(database) as later:

        def come_and_go(holders: Sequence[Holder]) -> None:
            assert [holder.pid for holder in holders] == [client.info.backend_pid]
            later.execute("INSERT INTO t VALUES (2)")
            client.commit()

        wait_for_writers(session, [_oid(session)], PATIENCE, waiting=come_and_go)
        assert [holder.pid for holder in writers(session, [_oid(session)]).values()] == [
            later.info.backend_pid
        ]
        later.rollback()


def test_the_barrier_names_whom_it_waited_for_in_vain(
    session: psycopg.Connection, client: psycopg.Connection
) -> None:
    session.execute("BEGIN; INSERT INTO t VALUES (9); PREPARE TRANSACTION 'forgotten'")
    client.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(NotNow) as late:
        wait_for_writers(session, [_oid(session)], 0.2)
    assert "prepared transaction 'forgotten' (postgres on" in late.value.message
    assert f"pid {client.info.backend_pid} (postgres on" in late.value.message
    assert "shop, for" in late.value.message
    session.execute("COMMIT PREPARED 'forgotten'")
    client.commit()
    wait_for_writers(session, [_oid(session)], 0.2)


def test_the_barrier_covers_every_relation_it_is_given(
    session: psycopg.Connection, client: psycopg.Connection
) -> None:
    session.execute(
        "CREATE TABLE p (id int) PARTITION BY LIST (id);"
        " CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)"
    )
    client.execute("INSERT INTO p1 VALUES (1)")
    assert not writers(session, [_oid(session, "p")])
    assert writers(session, [_oid(session, "p"), _oid(session, "p1")])


def test_waiting_at_the_barrier_can_be_stopped(
    session: psycopg.Connection, client: psycopg.Connection
) -> None:
    def stop(holders: Sequence[Holder]) -> None:
        raise Interrupted("stopped")

    client.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(Interrupted):
        wait_for_writers(session, [_oid(session)], PATIENCE, waiting=stop)


def test_old_snapshots_are_those_that_miss_a_transaction(
    session: psycopg.Connection, client: psycopg.Connection, database: str
) -> None:
    with ExitStack() as stack:
        reader = stack.enter_context(psycopg.connect(database, application_name="report"))
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        session.execute("INSERT INTO t VALUES (1)")
        xid = _xid(session)
        late = stack.enter_context(psycopg.connect(database))
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("SELECT 1")
        idle = stack.enter_context(psycopg.connect(database))
        idle.execute("SELECT 1")
        _xid(session)
        pids = [holder.pid for holder in old_snapshots(session, xid)]
        assert pids == [reader.info.backend_pid]
        assert "report" in str(old_snapshots(session, xid)[0])
        assert "old snapshot" in str(old_snapshots(session, xid)[0])
        reader.rollback()
        assert old_snapshots(session, xid) == []
        late.rollback()


def test_a_prepared_transaction_older_than_the_copy_is_named(session: psycopg.Connection) -> None:
    session.execute("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'forgotten'")
    xid = _xid(session)
    (holder,) = old_snapshots(session, xid)
    assert (holder.pid, holder.label) == (None, "prepared transaction 'forgotten'")


def _xid(session: psycopg.Connection) -> int:
    row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    xid: int = row[0]
    return xid


def test_what_was_decoded_is_held_back_until_it_is_visible(
    session: psycopg.Connection, database: str
) -> None:
    """A commit that waits for a standby is in the stream, and in no snapshot: the gate is shut
    and the barrier waits."""
    watched = watch(session, "t", key=["id"])
    oids = [watched.relations[0].oid]
    with ExitStack() as stack:
        stream = open_stream(database, Names.of("t-settled"), {})
        stack.callback(stream.drop)
        stream.open(watched, stream.prepare(watched))
        frozen = stack.enter_context(Ice(database)).freeze("INSERT INTO t VALUES (1)")
        origin = keys_of(until_fence(stream))[int_key(1)]
        assert session.execute("SELECT id FROM t").fetchall() == []
        assert not _settled(session, origin.xid)
        with pytest.raises(NotNow, match=f"pid {frozen.pid} "):
            wait_for_writers(session, oids, 0.2)
        frozen.release(session)
        wait_for_writers(session, oids, PATIENCE)
        assert session.execute("SELECT id FROM t").fetchall() == [(1,)]
        assert _settled(session, origin.xid)


def _settled(session: psycopg.Connection, xid: int) -> bool:
    condition = gate(sql.SQL("{}::text::xid8").format(sql.Literal(str(xid))))
    row = session.execute(sql.SQL("SELECT {}").format(condition)).fetchone()
    return row is not None and bool(row[0])
