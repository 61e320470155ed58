"""The locks of the cutover, in an order in which nobody waits for us in a circle."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from psycopg import sql

from restructure.engine.work import Work
from restructure.model.failpoint import failpoint
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Blocker, Mode, Wanted, blockers
from restructure.shape.carry.swap import Swap

_EVICT_TIMEOUT = "5s"
"""Above deadlock_timeout (1 s by default), for only then does a waiter cancel an autovacuum."""

_LONGEST_WAIT = 0.1
"""Seconds that a lock is waited for while others are held. Clients may have lowered their
deadlock_timeout, which nobody else can see: it must be above this."""


def take_locks(work: Work, session: Connection, swap: Swap, *, writers_first: bool) -> None:
    """Lock everything that must be locked before we look, the source last.

    Raises psycopg.errors.LockNotAvailable, or QueryCanceled where many locks took too long.
    ``writers_first``: see Wanted.writer.
    """
    tree = list(work.source.tree)
    _evict_autovacuum(work.state, tree[0])
    session.execute("SELECT set_config('lock_timeout', %s, true)", (_EVICT_TIMEOUT,))
    # nobody but an autovacuum can hold the shadow
    session.execute(_lock([work.made_shadow().relation], "ACCESS EXCLUSIVE", descend=True))
    wait = _Patience(session, work.plan.cutover.lock_timeout.total_seconds())
    failpoint("cutover.before lock")
    for step in swap.first:
        wait.run(sql.SQL(step.text))
    if writers_first:
        for mode, tables in _by_mode(wanted for wanted in swap.wanted if wanted.writer):
            wait.lock(tables, mode)
    failpoint("cutover.before source")
    wait.lock(tree, "ACCESS EXCLUSIVE")


def _evict_autovacuum(connection: Connection, table: Relation) -> None:
    """Make autovacuums of the table and its partitions give way, and let go of it again.

    On a session and in a transaction of its own: whoever waits for the locks below holds nothing
    yet that even a client with LOCK TABLE may want.
    """
    with connection.transaction():
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (_EVICT_TIMEOUT,))
        connection.execute(_lock([table], "SHARE UPDATE EXCLUSIVE", descend=True))


def lock_statement(wanted: Wanted, *, wait: bool = True) -> sql.Composed:
    """Lock a table and its partitions."""
    return _lock([wanted.relation], wanted.mode, descend=True, wait=wait)


class _Patience:
    """Waits for the first lock as long as the plan says, for all others hardly at all.

    Whoever waits for deadlock_timeout looks for a circle, and may be made to fail (PostgreSQL
    docs, runtime-config-locks). While we hold what clients want, we must have given up before.
    """

    def __init__(self, session: Connection, seconds: float) -> None:
        row = session.execute(
            "SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'"
        ).fetchone()
        assert row is not None
        self._session = session
        self._deadline = time.monotonic() + seconds
        self._longest = min(float(row[0]) / 2, _LONGEST_WAIT)
        self._held = False

    def lock(self, tables: Sequence[Relation], mode: Mode) -> None:
        """Lock the tables, the first of them alone. Raises LockNotAvailable."""
        for some in (tables[:1], tables[1:]):
            if some:
                self.run(_lock(some, mode))

    def run(self, statement: sql.SQL | sql.Composed) -> None:
        """Run what takes locks; one only where it is the first that runs."""
        milliseconds = max(1, int((self._deadline - time.monotonic()) * 1000))
        # lock_timeout is for each lock, the other for all that the statement takes
        self._session.execute(
            "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
            (f"{milliseconds}ms", f"{milliseconds + 20}ms"),
        )
        self._session.execute(statement)
        if not self._held:
            self._held = True
            self._deadline = min(self._deadline, time.monotonic() + self._longest)


def _by_mode(wanted: Iterable[Wanted]) -> Iterator[tuple[Mode, list[Relation]]]:
    tables: dict[Mode, list[Relation]] = {}
    for one in wanted:
        tables.setdefault(one.mode, []).append(one.relation)
    yield from tables.items()


def _lock(
    tables: Sequence[Relation], mode: Mode, *, descend: bool = False, wait: bool = True
) -> sql.Composed:
    """LOCK TABLE. ``descend``: their partitions as well."""
    only = sql.SQL("" if descend else "ONLY ")
    return sql.SQL("LOCK TABLE {} IN {} MODE{}").format(
        sql.SQL(", ").join(only + table.identifier for table in tables),
        sql.SQL(mode),
        sql.SQL("" if wait else " NOWAIT"),
    )


def terminate_blockers(work: Work) -> None:
    """End the sessions that keep us out, as the plan allows it."""
    oids = [leaf.oid for leaf in work.source.leaves]
    for blocker in blockers(work.state, oids, "ACCESS EXCLUSIVE"):
        if blocker.kind == "session" and not _ours(blocker):
            work.state.execute("SELECT pg_terminate_backend(%s)", (blocker.pid,))
            work.tell("terminated", who=str(blocker))


def _ours(blocker: Blocker) -> bool:
    return blocker.application.startswith("restructure ")
