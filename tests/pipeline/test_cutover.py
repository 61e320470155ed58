"""The swap: what stands in its way is named, what fails in it leaves no trace, what it takes is little."""

from __future__ import annotations

import threading

import psycopg
import pytest
from psycopg import sql

from restructure.errors import NotNow
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.runner import Runner
from tests.pipeline.tool import Tool, run_to_live
from tests.workload import PLAN, seed

IMPATIENT = PLAN + "cutover: {{lock_timeout: 100ms, attempts: {attempts}}}\n"


def plan(attempts: int = 50) -> str:
    """Tries enough that a busy machine may spoil some of them."""
    return IMPATIENT.format(name="items", attempts=attempts)


def ready(database: str, connection: psycopg.Connection, rows: int = 500) -> None:
    """A job that has come to ready, with nobody attending it."""
    seed(connection, rows)
    with Tool(database, plan(), Wish()) as tool:
        assert tool.finish().phase == Phase.READY


def type_of_id(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'items'::regclass AND attname = 'id'"
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_who_holds_the_lock_is_named_and_the_next_try_succeeds(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with psycopg.connect(database, application_name="nightly report") as reader:
        pid = reader.info.backend_pid
        reader.execute("SELECT count(*) FROM items")
        with Tool(database, plan()) as tool:
            why = tool.not_yet(f"pid {pid} (")
            assert "nightly report" in why
            assert reader.info.user in why
            reader.rollback()
            assert tool.finish().phase == Phase.LIVE
    assert type_of_id(connection) == "bigint"


def test_after_the_last_attempt_the_job_is_ready_again_and_clients_saw_nothing(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM items")
        with (
            Tool(database, plan(attempts=2)) as tool,
            pytest.raises(NotNow, match="no cutover in 2 attempts"),
        ):
            tool.finish()
        reader.rollback()
    assert type_of_id(connection) == "integer"
    assert connection.execute("SELECT phase FROM restructure.job").fetchone() == ("ready",)
    assert run_to_live(database, plan()).phase == Phase.LIVE


def test_a_prepared_transaction_in_the_way_is_named(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(
            "BEGIN; UPDATE items SET amount = 7 WHERE id = 1; PREPARE TRANSACTION 'forgotten'"
        )
    with Tool(database, plan()) as tool:
        tool.not_yet("forgotten")
        connection.execute("COMMIT PREPARED 'forgotten'")
        assert tool.finish().phase == Phase.LIVE
    assert connection.execute("SELECT amount FROM items WHERE id = 1").fetchone() == (7,)


def test_a_way_back_that_was_made_by_half_is_made_whole_by_the_next_try(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_current_xact_id()")  # no slot is made before it ends
        with Tool(database, plan() + "stream: {kind: pgoutput, slot_timeout: 300ms}\n") as tool:
            tool.not_yet("slot")
            other.rollback()
            assert tool.finish().phase == Phase.LIVE
    connection.execute("INSERT INTO items (id, code, amount) VALUES (-1, 'new', 1)")
    back = Runner(database, lambda *_: None, lambda *_: None).attend("items", Wish(revert=True))
    assert back.phase == Phase.REVERTED
    assert connection.execute("SELECT code FROM items WHERE id = -1").fetchone() == ("new",)


def test_a_snapshot_from_before_the_copy_is_waited_for(
    database: str, connection: psycopg.Connection
) -> None:
    """It would find the new table empty, whatever table it has read before."""
    seed(connection, 500)
    connection.execute("CREATE TABLE elsewhere (n int)")
    with psycopg.connect(database, application_name="old reader") as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT * FROM elsewhere")
        with Tool(database, plan()) as tool:
            tool.not_yet("old reader", "snapshot")
            old.rollback()
            assert tool.finish().phase == Phase.LIVE


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_defaults_of_the_role_do_not_reach_our_sessions(
    database: str, connection: psycopg.Connection, isolation: str
) -> None:
    """A repeatable-read cutover would read with a snapshot from before its lock."""
    seed(connection, 2_000)
    name = sql.Identifier(connection.info.dbname)
    for setting, value in (
        ("default_transaction_isolation", isolation),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1ms"),
        ("idle_in_transaction_session_timeout", "1ms"),
    ):
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                name, sql.Identifier(setting), sql.Literal(value)
            )
        )
    try:
        with Tool(database, plan(), hold="cutover entered") as tool:
            tool.held()
            connection.execute("INSERT INTO items (id, code, amount) VALUES (-1, 'late', 1)")
            assert tool.finish().phase == Phase.LIVE
    finally:
        connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
    assert connection.execute("SELECT code FROM items WHERE id = -1").fetchone() == ("late",)


@pytest.mark.parametrize("table", ["items", "restructure_items.items"], ids=["source", "shadow"])
def test_an_autovacuum_in_the_way_is_evicted(
    database: str, connection: psycopg.Connection, table: str
) -> None:
    """With a lock_timeout below deadlock_timeout alone, no attempt would ever get past it."""
    ready(database, connection, rows=20_000)
    connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
    connection.execute("SELECT pg_reload_conf()")
    try:
        with Tool(database, plan(), Wish(stay=True)) as tool:
            tool.until(lambda: bool(tool.progress))
            connection.execute(
                sql.SQL(
                    "ALTER TABLE {} SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,"
                    " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)"
                ).format(sql.Identifier(*table.split(".")))
            )
            connection.execute("UPDATE items SET body = 'again'")
            tool.until(lambda: vacuumed(connection, table))
            connection.execute("UPDATE restructure.job SET request = 'cutover'")
            assert tool.finish().phase == Phase.LIVE
            # another reason, such as a slow stream, is none of the autovacuum's doing
            missed = "the lock was not had"
            assert not any(missed in detail.get("why", "") for _, _, detail in tool.events)
    finally:
        connection.execute("ALTER SYSTEM RESET autovacuum_naptime")
        connection.execute("SELECT pg_reload_conf()")


def vacuumed(connection: psycopg.Connection, table: str) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = %s::regclass)", (table,)
    ).fetchone()
    return row == (True,)


def test_the_retired_table_refuses_writes_and_keeps_its_rows(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection, rows=100)
    run_to_live(database, plan())
    assert connection.execute(
        "SELECT count(*) FROM restructure_items_retired.items"
    ).fetchone() == (100,)
    for statement in (
        "INSERT INTO restructure_items_retired.items (id, amount) VALUES (-5, 1)",
        "UPDATE restructure_items_retired.items SET amount = 1",
        "DELETE FROM restructure_items_retired.items",
        "TRUNCATE restructure_items_retired.items",
    ):
        with pytest.raises(psycopg.Error, match="items"):
            connection.execute(statement)  # type: ignore[call-overload]
    assert connection.execute(
        "SELECT count(*) FROM restructure_items_retired.items"
    ).fetchone() == (100,)


def test_a_statement_that_waited_for_the_swap_writes_to_the_new_table(
    database: str, connection: psycopg.Connection
) -> None:
    """Clients that were in the queue resolve the name again and go on."""
    ready(database, connection)
    done = threading.Event()

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as client:
            number = 0
            while not done.is_set():
                number += 1
                client.execute(
                    "INSERT INTO items (id, code, amount) VALUES (%s, %s, 1)",
                    (-number, f"w{number}"),
                )
            client.execute(
                "INSERT INTO items (id, code, amount) VALUES (-1000000, %s, %s)", ("count", number)
            )

    client = threading.Thread(target=write)
    client.start()
    try:
        job = run_to_live(database, plan())
    finally:
        done.set()
        client.join()
    assert job.phase == Phase.LIVE
    written = connection.execute("SELECT amount FROM items WHERE id = -1000000").fetchone()
    assert written is not None
    assert (
        connection.execute("SELECT count(*) FROM items WHERE id BETWEEN -999999 AND -1").fetchone()
        == written
    )


def test_terminate_blockers_ends_who_holds_the_lock_after_some_tries(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM items")
        forceful = (
            PLAN.format(name="items") + "cutover: {lock_timeout: 100ms, terminate_blockers: true}\n"
        )
        with Tool(database, forceful) as tool:
            assert tool.finish().phase == Phase.LIVE
            assert "terminated" in tool.happened
        with pytest.raises(psycopg.OperationalError):
            reader.execute("SELECT 1")


def test_a_swap_whose_acknowledgement_was_lost_is_found_committed(
    database: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the server has committed: the job's row tells."""
    ready(database, connection)
    commit = psycopg.Connection.commit
    lost: list[int] = []

    def commit_then_lose(self: psycopg.Connection) -> None:
        commit(self)
        if "cutover" in self.info.get_parameters().get("application_name", "") and not lost:
            lost.append(self.info.backend_pid)
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", commit_then_lose)
    with Tool(database, plan()) as tool:
        assert tool.finish().phase == Phase.LIVE
        assert lost and "connection lost, trying again" not in tool.happened
    assert type_of_id(connection) == "bigint"


def test_a_swap_whose_connection_broke_before_the_commit_is_tried_again(
    database: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(database, connection)
    commit = psycopg.Connection.commit
    broken: list[int] = []

    def lose_then_commit(self: psycopg.Connection) -> None:
        if "cutover" in self.info.get_parameters().get("application_name", "") and not broken:
            broken.append(self.info.backend_pid)
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 60000)", (self.info.backend_pid,))
        commit(self)

    monkeypatch.setattr(psycopg.Connection, "commit", lose_then_commit)
    with Tool(database, plan()) as tool:
        assert tool.finish().phase == Phase.LIVE
        tool.not_yet("before the swap was committed")
    assert broken and type_of_id(connection) == "bigint"
