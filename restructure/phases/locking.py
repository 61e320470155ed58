"""The locks of the cutover, in an order in which nobody waits for us in a circle."""

from __future__ import annotations

import time

from psycopg import sql

from restructure.engine.work import Work
from restructure.model.failpoint import failpoint
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.shape.carry.swap import Swap

_EVICT_TIMEOUT = "5s"
"""Above deadlock_timeout (1 s by default), for only then does a waiter cancel an autovacuum."""


def take_locks(work: Work, session: Connection, swap: Swap, *, writers_first: bool) -> None:
    """Lock everything that must be locked before we look, the source last.

    Raises psycopg.errors.LockNotAvailable. ``writers_first``: see Wanted.writer.
    """
    source = work.source.relation.identifier
    session.execute("SELECT set_config('lock_timeout', %s, true)", (_EVICT_TIMEOUT,))
    session.execute(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(source))
    # nobody but an autovacuum can hold the shadow
    session.execute(
        sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(
            work.made_shadow().relation.identifier
        )
    )
    wait = _Patience(session, work.plan.cutover.lock_timeout.total_seconds())
    failpoint("cutover.before lock")
    for step in swap.first:
        wait.run(session, sql.SQL(step.text))
    if writers_first:
        for wanted in swap.wanted:
            if wanted.writer:
                wait.run(session, lock_statement(wanted))
    wait.run(session, sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(source))


class _Patience:
    """Waits for several locks no longer than for one, and never until the server looks for a deadlock.

    Whoever waits for deadlock_timeout looks for a circle, and may be made to fail (PostgreSQL
    docs, runtime-config-locks). Clients that wait for us must never get so far because of us.
    """

    def __init__(self, session: Connection, seconds: float) -> None:
        row = session.execute(
            "SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'"
        ).fetchone()
        assert row is not None
        self._deadline = time.monotonic() + seconds
        self._longest = float(row[0]) / 2
        self._held = False

    def run(self, session: Connection, statement: sql.SQL | sql.Composed) -> None:
        """Run what takes one lock. Raises LockNotAvailable when the time is up."""
        left = self._deadline - time.monotonic()
        if self._held:
            left = min(left, self._longest)
        milliseconds = max(1, int(left * 1000))
        session.execute("SELECT set_config('lock_timeout', %s, true)", (f"{milliseconds}ms",))
        session.execute(statement)
        if not self._held:
            self._held = True
            self._deadline = min(self._deadline, time.monotonic() + self._longest)


def lock_statement(wanted: Wanted, *, wait: bool = True) -> sql.Composed:
    return sql.SQL("LOCK TABLE {} IN {} MODE{}").format(
        wanted.relation.identifier, sql.SQL(wanted.mode), sql.SQL("" if wait else " NOWAIT")
    )
