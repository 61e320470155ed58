"""Foreign keys from, to and within the table: clients feel nothing of ours in them at any moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from restructure.demo.server import Server
from restructure.errors import RestructureError
from restructure.model import failpoint
from restructure.model.phase import Phase
from restructure.phases.preview import preview
from restructure.plan.load import parse_plan
from restructure.shape.table import read_table
from tests.carry.build import dump
from tests.pipeline.moments import Gate, eventually, value
from tests.pipeline.shapes import Writers, count, one, plan, run
from tests.pipeline.tool import Tool

SCHEMA = """
CREATE TABLE p (id int PRIMARY KEY);
CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES p ON DELETE CASCADE, note text,
                up int CONSTRAINT upwards REFERENCES t ON DELETE SET NULL);
CREATE TABLE child (id int PRIMARY KEY, t int CONSTRAINT to_t REFERENCES t ON DELETE CASCADE,
                    note text);
CREATE TABLE strict (t int CONSTRAINT stays REFERENCES t ON DELETE RESTRICT);
CREATE TABLE tree (t int CONSTRAINT of_tree REFERENCES t ON DELETE CASCADE) PARTITION BY LIST (t);
CREATE TABLE tree_1 PARTITION OF tree FOR VALUES IN (1);
CREATE TABLE tree_rest PARTITION OF tree DEFAULT;
COMMENT ON CONSTRAINT of_tree ON tree IS 'all of them';
INSERT INTO p SELECT generate_series(1, 900);
INSERT INTO t SELECT n, n, 'x', nullif(n - 1, 0) FROM generate_series(1, 900) n;
INSERT INTO child SELECT n, n, 'x' FROM generate_series(1, 900) n;
INSERT INTO tree SELECT n FROM generate_series(1, 800) n;
INSERT INTO strict VALUES (900);
"""
MOMENTS = (
    "copy.chunk",
    "index.deleted",
    "index.built",
    "catchup.applied",
    "way back.stream",
    "cutover.prepared",
    "cutover.before lock",
    "live.dropped",
    "live.validated",
)
IMPATIENT = "-c deadlock_timeout=200ms"
WIDER = ["ALTER id TYPE bigint", "ALTER up TYPE bigint"]


def text(*, lock_timeout: str = "300ms") -> str:
    return plan(
        "t",
        alter=WIDER,
        copy={"workers": 1, "chunk_target": "20ms"},
        cutover={"lock_budget": "5s", "lock_timeout": lock_timeout, "attempts": 50},
    )


def assert_consistent(session: psycopg.Connection) -> None:
    """All keys are there and validated, and none of the retired table's is left."""
    keys = session.execute(
        "SELECT conname, convalidated, confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND conparentid = 0 AND connamespace = 'public'::regnamespace"
        " ORDER BY conname"
    ).fetchall()
    assert keys == [
        ("of_tree", True, "t"),
        ("stays", True, "t"),
        ("t_p_fkey", True, "p"),
        ("to_t", True, "t"),
        ("upwards", True, "t"),
    ]
    for table in ("child", "tree"):
        orphans = f"SELECT count(*) FROM {table} WHERE NOT EXISTS (SELECT FROM t WHERE id = t)"
        assert count(session, orphans) == 0


def test_deletes_of_parents_and_of_rows_with_children_succeed_at_every_moment(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    run(connection, SCHEMA)
    before = dump(server, database)
    with ExitStack() as stack:
        gates = [stack.enter_context(Gate(moment)) for moment in MOMENTS]
        tool = stack.enter_context(Tool(database, text()))
        for number, gate in enumerate(gates, 1):
            tool.until(lambda gate=gate: gate.reached)  # type: ignore[misc]
            by_parent, by_row = 10 * number, 10 * number + 5
            run(connection, f"DELETE FROM p WHERE id = {by_parent}")
            run(connection, f"DELETE FROM t WHERE id = {by_row}")
            gone = f"IN ({by_parent}, {by_row})"
            for query in (
                f"SELECT count(*) FROM t WHERE id {gone} OR up {gone}",
                f"SELECT count(*) FROM child WHERE t {gone}",
                f"SELECT count(*) FROM tree WHERE t {gone}",
            ):
                assert count(connection, query) == 0, (gate, query)
            with pytest.raises(psycopg.errors.IntegrityError) as refused:
                run(connection, "DELETE FROM p WHERE id = 900")
            assert refused.value.diag.constraint_name == "stays"
            assert refused.value.diag.table_name == "strict"
            gate.open()
        assert tool.finish().phase == Phase.LIVE
    assert_consistent(connection)
    assert count(connection, "SELECT count(*) FROM t") == 900 - 2 * len(MOMENTS)
    assert dump(server, database).splitlines() == in_new_order(before)


def in_new_order(before: str) -> list[str]:
    lines = before.splitlines()
    start = lines.index("CREATE TABLE public.t (")
    end = lines.index(");", start)
    lines[start:end] = [line.replace("id integer", "id bigint") for line in lines[start:end]]
    lines[start:end] = [line.replace("up integer", "up bigint") for line in lines[start:end]]
    return lines


def test_clients_who_write_to_both_tables_in_both_orders_see_no_error(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    """Each order has rows of its own: the clients cannot block each other in a circle."""
    run(connection, SCHEMA)
    steps = (
        "UPDATE child SET note = note || 'x' WHERE id = 1; UPDATE t SET note = 'a' WHERE id = 1",
        "UPDATE t SET note = 'b' WHERE id = 2; UPDATE child SET note = note || 'y' WHERE id = 2",
        "INSERT INTO t SELECT 1000 + floor(random() * 1e9), 3 ON CONFLICT DO NOTHING",
        "INSERT INTO child SELECT 1000 + floor(random() * 1e9), 3 ON CONFLICT DO NOTHING",
        "SELECT count(*) FROM child JOIN t ON t.id = child.t",
    )
    clients = make_conninfo(database, options=IMPATIENT)
    with Writers(clients, *steps, clients=4) as writers, Tool(database, text()) as tool:
        assert tool.finish().phase == Phase.LIVE
        writers.wait_for(30)
        writers.stop()
    assert_consistent(connection)


class Client:
    """A session whose last statement may have to wait."""

    def __init__(self, dsn: str, admin: psycopg.Connection) -> None:
        self._session = psycopg.connect(make_conninfo(dsn, options=IMPATIENT))
        self._admin = admin
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()
        self._session.close()

    def run(self, statement: str) -> None:
        run(self._session, statement)

    def ask(self, statement: str) -> None:
        """Send a statement and return when it waits for a lock."""
        self._thread = threading.Thread(target=self._ask, args=[statement])
        self._thread.start()
        waits = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        eventually(
            lambda: bool(value(self._admin, waits, self._session.info.backend_pid)),
            "the client waits",
        )

    def commit(self) -> None:
        """Wait for the answer, then commit. Raises what the client was told."""
        if self._thread is not None:
            self._thread.join()
        if self.error is not None:
            raise self.error
        self._session.commit()

    def _ask(self, statement: str) -> None:
        try:
            run(self._session, statement)
        except BaseException as error:  # raised again by commit
            self.error = error


BOTH = "SELECT t.note || child.note FROM t JOIN child ON t.id = child.t WHERE t.id = 1"
OURS = """
SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
               WHERE NOT l.granted AND l.relation = %s::regclass
                 AND a.application_name LIKE 'restructure %%')
"""


def test_whoever_locks_the_table_and_then_a_child_goes_first(
    database: str, connection: psycopg.Connection
) -> None:
    """We hold the child and ask for the table; the client holds the table and waits for the child."""
    run(connection, SCHEMA)
    with (
        Client(database, connection) as client,
        Gate("cutover.before source") as gate,
        Tool(database, text(lock_timeout="2s")) as tool,
    ):
        tool.until(lambda: gate.reached)
        client.run("UPDATE t SET note = 'mine' WHERE id = 1")
        client.ask("UPDATE child SET note = 'mine' WHERE id = 1")
        gate.open()
        client.commit()
        assert tool.finish().phase == Phase.LIVE
    assert one(connection, BOTH) == "minemine"
    assert_consistent(connection)


def test_whoever_locks_a_child_and_then_the_table_goes_first(
    database: str, connection: psycopg.Connection
) -> None:
    """We hold the table and ask for the child; the client holds the child and waits for the table."""
    run(connection, SCHEMA)
    with (
        Client(database, connection) as client,
        Gate("way back.stream") as made,  # a slot is not made while somebody writes
        Gate("cutover.locked") as gate,
        Tool(database, text()) as tool,
    ):
        tool.until(lambda: made.reached)
        client.run("UPDATE child SET note = 'mine' WHERE id = 1")
        made.open()
        tool.until(lambda: gate.reached)
        client.ask("UPDATE t SET note = 'mine' WHERE id = 1")
        gate.open()
        client.commit()
        assert tool.finish().phase == Phase.LIVE
    assert one(connection, BOTH) == "minemine"
    assert_consistent(connection)


def test_while_we_wait_for_a_child_we_hold_nothing_that_even_a_lock_table_would_mind(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, SCHEMA)
    with (
        Client(database, connection) as client,
        Gate("cutover.before lock") as gate,
        Tool(database, text(lock_timeout="5s")) as tool,
    ):
        tool.until(lambda: gate.reached)
        client.run("LOCK TABLE child IN SHARE MODE")
        gate.open()
        tool.until(lambda: bool(value(connection, OURS, "child")))
        client.run("LOCK TABLE t IN EXCLUSIVE MODE")
        client.commit()
        assert tool.finish().phase == Phase.LIVE
    assert_consistent(connection)


def test_a_process_that_ends_between_two_validations_goes_on_with_the_next(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    run(connection, SCHEMA)
    before = dump(server, database)
    runs = 0
    while True:
        runs += 1
        with ends_at(runs), Tool(database, text()) as tool:
            try:
                assert tool.finish().phase == Phase.LIVE
                break
            except RestructureError as error:
                assert error.message == "the end"
    assert runs > 5
    assert_consistent(connection)
    assert dump(server, database).splitlines() == in_new_order(before)


class ends_at:
    """The n-th validation of a run is its last."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __enter__(self) -> None:
        failpoint.here["live.validated"] = self._pass

    def __exit__(self, *_: object) -> None:
        del failpoint.here["live.validated"]

    def _pass(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise RestructureError("the end")


def test_nobody_queues_behind_the_key_of_a_partitioned_child(
    database: str, connection: psycopg.Connection, pg_version: int
) -> None:
    """Before PostgreSQL 18 it locks writers out for a moment, after the swap."""
    if pg_version >= 18:
        pytest.skip("there it is added NOT VALID, in the swap")
    run(connection, SCHEMA)
    asks: Callable[[], bool] = lambda: bool(value(connection, OURS, "tree"))  # noqa: E731
    with (
        Client(database, connection) as client,
        Gate("live.dropped") as gate,
        Tool(database, text()) as tool,
    ):
        tool.until(lambda: gate.reached)
        client.run("INSERT INTO tree VALUES (801)")
        gate.open()
        for number in (802, 803):
            tool.until(asks)
            with psycopg.connect(make_conninfo(database, options=IMPATIENT)) as other:
                run(other, "SET statement_timeout = '10s'")
                run(other, f"INSERT INTO tree VALUES ({number})")
        client.commit()
        assert tool.finish().phase == Phase.LIVE
    assert_consistent(connection)


def test_a_key_that_was_added_to_a_partition_just_before_the_lock_is_carried_by_the_next_try(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);"
        "INSERT INTO t SELECT generate_series(1, 9); CREATE TABLE child (t int)",
    )
    with (
        Gate("cutover.before lock") as gate,
        Tool(database, plan("t", cutover={"lock_budget": "5s", "attempts": 50})) as tool,
    ):
        tool.until(lambda: gate.reached)
        run(connection, "ALTER TABLE child ADD CONSTRAINT to_1 FOREIGN KEY (t) REFERENCES t_1")
        gate.open()
        tool.not_yet("changed just before the lock")
        assert tool.finish().phase == Phase.LIVE
    key = "SELECT confrelid::regclass::text FROM pg_constraint WHERE conname = 'to_1'"
    assert one(connection, key) == "t_1"


def test_a_key_that_is_dropped_before_it_is_validated_is_no_trouble(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, SCHEMA)
    with Gate("live.dropped") as gate, Tool(database, text()) as tool:
        tool.until(lambda: gate.reached)
        run(connection, "DROP TABLE child; ALTER TABLE strict DROP CONSTRAINT stays")
        gate.open()
        assert tool.finish().phase == Phase.LIVE
    assert tool.happened.count("warning") >= 2


def test_plan_shows_the_locks_on_children_and_what_is_validated_after_the_swap(
    connection: psycopg.Connection,
) -> None:
    run(connection, SCHEMA)
    shown = preview(connection, parse_plan(text()), read_table(connection, "t"))
    steps = [(step.phase, step.text, step.lock) for step in shown.steps]
    assert (
        Phase.LIVE,
        'ALTER TABLE "public"."child" VALIDATE CONSTRAINT "to_t"',
        "SHARE UPDATE EXCLUSIVE on public.child, ROW SHARE on public.t",
    ) in steps
    assert "ACCESS EXCLUSIVE on public.child" in shown.swap_locks
    assert "ACCESS EXCLUSIVE on public.tree_1" in shown.swap_locks
