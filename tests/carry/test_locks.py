"""Who blocks a lock of ours is told by pid, user, state, ages and mode, never by values."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from restructure.postgres.locks import CONFLICTS, Mode, blockers, waiting_on
from tests.carry.build import relation
from tests.stream_contract import PATIENCE

_STRONGEST: Mode = "ACCESS EXCLUSIVE"


def waiting(connection: psycopg.Connection, pid: int) -> None:
    """Wait until the session ``pid`` waits for a lock."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        row = connection.execute("SELECT cardinality(pg_blocking_pids(%s))", [pid]).fetchone()
        if row and row[0]:
            return
    raise AssertionError("nobody waits")


def test_a_reader_in_a_transaction_blocks_access_exclusive_only(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE t (secret text)")
    oid = relation(connection, "t").oid
    with psycopg.connect(database, application_name="shop") as reader:
        reader.execute("SELECT * FROM t WHERE secret = 'hush'")
        (found,) = blockers(connection, [oid], "ACCESS EXCLUSIVE")
        others = blockers(connection, [oid], "SHARE ROW EXCLUSIVE")

        assert (found.pid, found.kind) == (reader.info.backend_pid, "session")
        assert (found.mode, found.relation, found.command) == ("ACCESS SHARE", "t", "SELECT")
        assert (found.application, found.state) == ("shop", "idle in transaction")
        assert found.transaction_age is not None
        assert "hush" not in str(found)
        assert str(reader.info.backend_pid) in str(found)
        assert others == []


def test_the_strongest_lock_of_a_session_is_shown_and_our_own_session_is_not(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE t (); CREATE TABLE u ();")
    oids = [relation(connection, name).oid for name in ("t", "u")]
    with psycopg.connect(database) as other, connection.transaction():
        connection.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        other.execute("LOCK TABLE t IN ACCESS SHARE MODE; LOCK TABLE u IN SHARE MODE")
        (found,) = blockers(connection, oids, "ACCESS EXCLUSIVE")

        assert (found.mode, found.relation) == ("SHARE", "u")


def test_a_prepared_transaction_is_named_by_its_gid(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE t (id int)")
    gid = f"lost in {connection.info.dbname}"
    with connection.transaction():
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
    (found,) = blockers(connection, [relation(connection, "t").oid], "ACCESS EXCLUSIVE")

    assert (found.kind, found.pid, found.gid) == ("prepared", None, gid)
    assert gid in str(found)


@pytest.mark.parametrize("mode", CONFLICTS)
def test_the_conflict_table_is_the_servers_own(
    database: str, connection: psycopg.Connection, mode: str
) -> None:
    connection.execute("CREATE TABLE t ()")
    oid = relation(connection, "t").oid
    with psycopg.connect(database) as other:
        for held in CONFLICTS:
            other.execute(f"LOCK TABLE t IN {held} MODE")
            told = bool(blockers(connection, [oid], mode))  # type: ignore[arg-type]
            refused = False
            try:
                with connection.transaction():
                    connection.execute(f"LOCK TABLE t IN {mode} MODE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                refused = True
            other.rollback()

            assert told == refused, f"{mode} against {held}"


def test_a_waiting_session_names_holders_first_and_then_the_queue(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE t ()")
    with (
        psycopg.connect(database) as holder,
        psycopg.connect(database) as queued,
        psycopg.connect(database) as last,
    ):
        holder.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        threads = []
        for session in (queued, last):
            pid = session.info.backend_pid
            statement = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"
            thread = threading.Thread(target=session.execute, args=[statement])
            thread.start()
            threads.append(thread)
            waiting(connection, pid)

        found = [blocker.pid for blocker in waiting_on(connection, last.info.backend_pid)]
        assert waiting_on(connection, holder.info.backend_pid) == []
        assert found == [holder.info.backend_pid, queued.info.backend_pid]

        holder.rollback()
        threads[0].join()
        queued.rollback()
        threads[1].join()


def test_a_session_that_waits_for_a_row_of_a_prepared_transaction_is_told_its_gid(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    gid = f"holds a row in {connection.info.dbname}"
    with connection.transaction():
        connection.execute("UPDATE t SET id = 2")
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
    with psycopg.connect(database) as writer:
        thread = threading.Thread(target=writer.execute, args=["UPDATE t SET id = 3"])
        thread.start()
        waiting(connection, writer.info.backend_pid)

        assert [b.gid for b in waiting_on(connection, writer.info.backend_pid)] == [gid]

        connection.execute(f"ROLLBACK PREPARED '{gid}'")
        thread.join()


def test_a_parallel_query_is_one_blocker_and_not_one_for_each_worker(
    database: str, connection: psycopg.Connection, pg_version: int
) -> None:
    connection.execute("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    setting = "debug_parallel_query" if pg_version >= 16 else "force_parallel_mode"
    with psycopg.connect(database, autocommit=True) as reader:
        reader.execute(f"SET {setting} = on")
        pid = reader.info.backend_pid

        def read() -> None:
            with pytest.raises(psycopg.errors.QueryCanceled):
                reader.execute("SELECT id FROM t WHERE pg_sleep(600) IS NOT NULL")

        thread = threading.Thread(target=read)
        thread.start()
        holders: list[tuple[int]] = []
        deadline = time.monotonic() + PATIENCE
        while len(holders) < 2 and time.monotonic() < deadline:
            holders = connection.execute(
                "SELECT DISTINCT pid FROM pg_locks WHERE relation = 't'::regclass"
            ).fetchall()
        found = [b.pid for b in blockers(connection, [relation(connection, "t").oid], _STRONGEST)]
        reader.cancel()
        thread.join()

    assert len(holders) == 2
    assert found == [pid]
