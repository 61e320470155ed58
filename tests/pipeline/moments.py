"""Interleavings by force: gates in the tool's way, commits that hang, settings of the server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import psycopg
from psycopg import sql

from restructure.model import failpoint

PATIENCE = 60.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)


def wait_until_released(session: psycopg.Connection) -> None:
    """A walsender whose reader has gone needs a moment to let go of its slot."""
    in_use = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database() AND active)"
    eventually(lambda: not value(session, in_use), "no slot is in use")


def value(session: psycopg.Connection, query: str, *words: object) -> object:
    """The first column of the first row."""
    row = session.execute(query, words or None).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None


class Gate:
    """Holds whoever passes the failpoint ``name`` until :meth:`open`.

    ``skip`` passages are let through first.
    """

    def __init__(self, name: str, *, skip: int = 0) -> None:
        self._name = name
        self._skip = skip
        self._lock = threading.Lock()
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __enter__(self) -> Gate:
        failpoint.here[self._name] = self._pass
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del failpoint.here[self._name]
        self.open()

    @property
    def reached(self) -> bool:
        """Whether somebody stands here, or has stood."""
        return self._reached.is_set()

    def open(self) -> None:
        self._opened.set()

    def _pass(self) -> None:
        with self._lock:
            self._skip -= 1
            if self._skip >= 0:
                return
        self._reached.set()
        assert self._opened.wait(PATIENCE), f"nobody opened {self._name}"


class Passings:
    """Counts who passes the failpoint ``name``: a way to know that the tool has had its turn."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def __enter__(self) -> Passings:
        failpoint.here[self._name] = self._pass
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del failpoint.here[self._name]

    def wait_for(self, more: int) -> None:
        goal = self.count + more
        eventually(lambda: self.count >= goal, f"{self._name} was passed {more} times")

    def _pass(self) -> None:
        self.count += 1


@contextlib.contextmanager
def settings(dsn: str, **changes: str) -> Iterator[None]:
    """The server's configuration changed for a while, seen by new sessions and by ``dsn``'s."""
    with psycopg.connect(dsn, autocommit=True) as session:
        _alter(session, changes)
        try:
            yield
        finally:
            _alter(session, dict.fromkeys(changes))


def _alter(session: psycopg.Connection, changes: dict[str, str | None]) -> None:
    before = {name: value(session, f"SHOW {name}") for name in changes}
    for name, new in changes.items():
        command = sql.SQL("ALTER SYSTEM RESET {}" if new is None else "ALTER SYSTEM SET {} = {}")
        words = [sql.Identifier(name)] + ([sql.Literal(new)] if new is not None else [])
        session.execute(command.format(*words))
    session.execute("SELECT pg_reload_conf()")
    for name in changes:
        eventually(
            lambda name=name: value(session, f"SHOW {name}") != before[name], f"{name} is set"
        )  # type: ignore[misc]


class Frozen:
    """A commit that is in the WAL and not yet visible, because it waits for a standby.

    Decoding sees it, snapshots do not: PostgreSQL writes a commit record before it marks the
    transaction as ended (xact.c, RecordTransactionCommit).
    """

    def __init__(self, dsn: str, run: Callable[[psycopg.Connection], None]) -> None:
        self._session = psycopg.connect(dsn, autocommit=True, application_name="client")
        self._session.execute("SET synchronous_commit = on")
        self.pid = self._session.info.backend_pid
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def release(self, admin: psycopg.Connection) -> None:
        """Let the commit become visible. The client has its answer when this returns."""
        while self._thread.is_alive():
            # Only while it waits: a second cancel could meet what comes after the wait.
            admin.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE pid = %s AND wait_event_type IN ('IPC', 'Lock')",
                [self.pid],
            )
            self._thread.join(0.05)
        self._session.close()
        if self._failure is not None:
            raise self._failure

    def _run(self, run: Callable[[psycopg.Connection], None]) -> None:
        try:
            run(self._session)
        except Exception as error:
            self._failure = error


class Ice:
    """Where commits freeze: ``with Ice(dsn) as ice: writer = ice.freeze(...)``.

    Sessions of the database commit at once all the same, unless they ask for more.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stack = contextlib.ExitStack()
        self._frozen: list[Frozen] = []

    def __enter__(self) -> Ice:
        self._admin = self._stack.enter_context(psycopg.connect(self._dsn, autocommit=True))
        self._admin.execute("SET synchronous_commit = local")
        self._admin.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = local").format(
                sql.Identifier(self._admin.info.dbname)
            )
        )
        self._stack.enter_context(settings(self._dsn, synchronous_standby_names="nobody"))
        self._wait_for_frost()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for frozen in self._frozen:
            if not frozen.over:
                frozen.release(self._admin)
        self._stack.close()

    def freeze(self, *statements: str) -> Frozen:
        """Run the statements in one transaction whose commit hangs."""

        def run(session: psycopg.Connection) -> None:
            with session.transaction():
                for statement in statements:
                    session.execute(statement)  # type: ignore[arg-type]

        return self._hang(run)

    def freeze_prepared(self, gid: str) -> Frozen:
        """COMMIT PREPARED that hangs."""

        def run(session: psycopg.Connection) -> None:
            session.execute(sql.SQL("COMMIT PREPARED {}").format(sql.Literal(gid)))

        return self._hang(run)

    def _hang(self, run: Callable[[psycopg.Connection], None]) -> Frozen:
        frozen = Frozen(self._dsn, run)
        self._frozen.append(frozen)
        frozen.start()
        eventually(lambda: self._hangs(frozen) or frozen.over, "the commit hangs")
        assert not frozen.over, "the commit did not hang"
        return frozen

    def _hangs(self, frozen: Frozen) -> bool:
        return (
            value(
                self._admin,
                "SELECT wait_event FROM pg_stat_activity WHERE pid = %s",
                frozen.pid,
            )
            == "SyncRep"
        )

    def _wait_for_frost(self) -> None:
        """The checkpointer is who makes the setting effective, some time after the reload."""

        def hangs() -> bool:
            probe = Frozen(self._dsn, _commit_something)
            probe.start()
            while not probe.over:
                if self._hangs(probe):
                    probe.release(self._admin)
                    return True
            probe.release(self._admin)
            return False

        eventually(hangs, "commits hang")


def _commit_something(session: psycopg.Connection) -> None:
    session.execute("SELECT pg_current_xact_id(), pg_logical_emit_message(true, 'test', '')")


def shadow_equals_source(session: psycopg.Connection) -> bool:
    """Whether the shadow of job ``items`` holds the transform of the source, row for row."""
    return not differences(session, "public.items", "restructure_items.items")


def assert_swapped_whole(session: psycopg.Connection) -> None:
    """The new table is the transform of the retired one, row for row."""
    assert differences(session, "restructure_items_retired.items", "public.items") == []


def differences(session: psycopg.Connection, old: str, new: str) -> list[tuple[object, ...]]:
    """Rows of only one side, of tables as tests.workload makes and changes them."""
    reading = f"SELECT id::bigint, code, amount, body, length(body)::bigint FROM {old}"
    written = f"SELECT id, code, amount, body, size FROM {new}"
    return session.execute(
        f"({reading} EXCEPT ALL {written}) UNION ALL ({written} EXCEPT ALL {reading}) LIMIT 5"  # type: ignore[arg-type]
    ).fetchall()
