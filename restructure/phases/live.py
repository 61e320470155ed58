"""After a swap: what it left to do, and then the retired table is kept in step, should one go back."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
from psycopg import errors as pg
from psycopg import sql

from restructure.catalog import job as jobs
from restructure.catalog.spool import Spool
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.work import Work
from restructure.errors import OperatorNeeded
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.phases.catchup import apply_pending
from restructure.phases.ready import RETRY_QUARANTINE_EVERY
from restructure.phases.removal import remove_stream, remove_tables
from restructure.phases.way_back import give_up
from restructure.postgres.script import Script
from restructure.shape.carry.quiet import quiet
from restructure.shape.made import SetAside, Shadow
from restructure.shape.table import read_relation

_LOCK_TIMEOUT = "50ms"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_RETRIED = 1000
"""Rows in quarantine up to which all are tried again now and then; a revert tries them in any case."""


def aftermath(work: Work) -> None:
    """Give up the other direction's stream, validate foreign keys, refresh statistics. Safe to repeat."""
    other = work.names.other
    remove_stream(
        work.dsn, other, work.plan.stream
    )  # the swap's, or of a try that a runner died in
    failpoint("live.dropped")
    row = jobs.reload(work.state, work.job.id)
    if row.aftermath:
        if work.shadow is not None:
            _patiently(work, lambda: _retire(work, work.made_shadow()))
            failpoint("live.retired")
        placed = Shadow.from_json((row.shadow if work.phase is Phase.LIVE else row.reverse) or {})
        for item in placed.set_aside:
            if item.moment == "after":
                _complete(work, item)
        work.control.long_statement(
            work.state,
            lambda: _execute(work, sql.SQL("ANALYZE {}").format(work.source.relation.identifier)),
        )
    remove_tables(work.state, other)
    if row.aftermath:
        jobs.store(work.state, work.job.id, request=None, aftermath=False)
        work.tell("done", retired=f"{work.names.shadow_schema}.{work.source.relation.name}")


def _retire(work: Work, shadow: Shadow) -> None:
    """Let nothing on the retired table act, and take out of it what the swap gave up.

    Those are the rows that the serving table cannot hold; with their loss accepted they are in
    neither, or another swap would bring them back.
    """
    gone = Spool(work.names.other, ())
    same = sql.SQL(" AND ").join(
        sql.SQL("t.{} {} q.{}").format(
            sql.Identifier(pair.target), sql.SQL(pair.target_equals), sql.Identifier(f"k{number}")
        )
        for number, pair in enumerate(shadow.mapping.key, 1)
    )
    with work.state.transaction():
        work.state.execute("SELECT set_config('lock_timeout', '1s', true)")
        quiet(Script(work.state), read_relation(work.state, shadow.relation.oid))
        if gone.exists(work.state):
            work.state.execute(
                sql.SQL("DELETE FROM {} AS t USING {} AS q WHERE {}").format(
                    shadow.relation.identifier, gone.quarantine, same
                )
            )


def follow(work: Work) -> bool:
    """Keep the retired table in step until somebody decides; whether a revert is wanted.

    False: it is to be finalized, left, or there is no way back any more.
    """
    void_ours(work)
    over = time.monotonic() + _window_left(work)
    retried = time.monotonic()
    while not work.swap_wanted:
        if work.finalize_wanted or not work.stay:
            return False
        if time.monotonic() > over:
            give_up(
                work, f"its time limit (revert_window, {work.plan.cutover.revert_window}) is over"
            )
            return False
        work.control.checkpoint()
        if time.monotonic() - retried > RETRY_QUARANTINE_EVERY:
            if work.spool.quarantined(work.state) <= _RETRIED:
                work.spool.retry_quarantined(work.state)
            retried = time.monotonic()
        if not apply_pending(work):
            work.breathe()
    return True


def void_ours(work: Work) -> None:
    """Forget what the stream still delivers from before the last swap: it was all ours."""
    snapshot = jobs.reload(work.state, work.job.id).copy_snapshot
    assert snapshot is not None, "the swap has noted its snapshot"
    work.fence()
    work.spool.void(work.state, snapshot)
    failpoint("live.voided")


def _window_left(work: Work) -> float:
    """Seconds, by the server's clock."""
    row = work.state.execute(
        "SELECT extract(epoch FROM swapped_at + %s - clock_timestamp())::float8"
        " FROM restructure.job WHERE id = %s",
        (work.plan.cutover.revert_window, work.job.id),
    ).fetchone()
    return row[0] if row else 0.0


def _complete(work: Work, item: SetAside) -> None:
    """Run one statement. Raises OperatorNeeded where rows are not as it wants them."""
    try:
        _patiently(work, lambda: _execute_in_turn(work, item))
    except pg.DuplicateObject:
        pass  # by a process that ended before it had done the rest
    except (pg.UndefinedObject, pg.UndefinedTable) as error:
        work.tell("warning", message=f"{item.name} was dropped since the swap: {reason(error)}")
        return
    except psycopg.Error as error:
        if not is_row_error(error):
            raise
        raise OperatorNeeded(
            f"constraint {item.name} is in place but could not be validated: {reason(error)}",
            hint="New rows are checked. Correct the old ones, then run the same command again.",
        ) from error
    work.tell("validated", name=item.name)
    failpoint("live.validated")


def _patiently(work: Work, run: Callable[[], None]) -> None:
    """Again and again, where it needs a lock and others do not let it."""
    pause = _FIRST_PAUSE
    while True:
        try:
            work.control.long_statement(work.state, run)
            return
        except pg.LockNotAvailable:
            work.control.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _execute_in_turn(work: Work, item: SetAside) -> None:
    """Nobody may queue behind us for long: SHARE UPDATE EXCLUSIVE is what no reader or writer minds."""
    if item.lock.startswith("SHARE UPDATE EXCLUSIVE"):
        _execute(work, sql.SQL(item.statement))
        return
    with work.state.transaction():
        work.state.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
        _execute(work, sql.SQL(item.statement))


def _execute(work: Work, statement: sql.SQL | sql.Composed) -> None:
    work.state.execute(statement)
