"""Cutover: one short transaction in which the shadow takes the source's place.

    SHARE UPDATE EXCLUSIVE   evicts autovacuum, disturbs nobody
    views on the table       in the order in which a reader locks them: they before the table
    ACCESS EXCLUSIVE         with the plan's short lock_timeout; other tables NOWAIT
    fence                    from another session: a message of ours would come only after our commit
    fingerprint              the source must be the table we copied
    last keys                read under the lock, by the session that holds it
    swap                     everything that hangs on the table, then SET SCHEMA twice
    phase row, commit        together, so that a lost answer can be looked up

Whatever fails rolls all of it back, and clients go on with the source table.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

import psycopg
from psycopg import errors as pg

from restructure.catalog import job as jobs
from restructure.engine.applier import LastKeys
from restructure.engine.capture import LINGER
from restructure.engine.drift import Guard
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.work import Work
from restructure.errors import NotNow
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.phases import outcome
from restructure.phases.catchup import apply_all, apply_pending
from restructure.phases.expected import Expected, expect, require_whole_stream
from restructure.phases.gates import obstacles
from restructure.phases.locking import lock_statement, take_locks
from restructure.phases.refused_ddl import told
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Blocker, blockers
from restructure.shape.carry.inventory import prepare_inventory, prepared_inventory, require_all
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import Swap, run_swap, swap_steps
from restructure.shape.made import Shadow

_LONGEST_PAUSE = 30.0
_TERMINATE_FROM = 3
"""Failed tries after which ``terminate_blockers`` acts, where the plan allows it."""


@dataclass(frozen=True, slots=True)
class Held:
    """How long clients waited for us: seconds in which the table was locked, and before that queued."""

    locked: float
    queued: float
    last_keys: int


def run(work: Work, guard: Guard) -> None:
    """Try until the swap is committed. Raises NotNow after the plan's number of attempts."""
    work.advance(Phase.CUTOVER)
    limits = work.plan.cutover
    why = ""
    for attempt in range(1, limits.attempts + 1):
        work.progress.cutover_attempts = attempt
        try:
            found = obstacles(work, jobs.reload(work.state, work.job.id).bulk_xid)
        except NotNow:
            _give_up(work)
            raise
        if not found:
            try:
                held = _attempt(work, guard, writers_first=attempt % 2 == 1)
            except NotNow as refused:
                found = [refused.message]
            else:
                _celebrate(work, held, attempt)
                return
        why = "; ".join(found)
        work.progress.blocked_by = why
        work.tell("cutover not yet", attempt=attempt, why=why)
        if attempt >= _TERMINATE_FROM and limits.terminate_blockers:
            _terminate_blockers(work)
        if attempt < limits.attempts:
            _rest(work, attempt)
    _give_up(work)
    raise NotNow(
        f"no cutover in {limits.attempts} attempts: {why}",
        hint=f"Nothing has changed for clients. Try again: restructure cutover {work.job.name}",
    )


def _give_up(work: Work) -> None:
    """Back to ready, and nobody's wish is left behind: the next run shall not cut over unasked."""
    with work.state.transaction():
        jobs.store(work.state, work.job.id, request=None)
        work.advance(Phase.READY)


def _attempt(work: Work, guard: Guard, *, writers_first: bool) -> Held:
    """One try. Raises NotNow where the lock is not had or the budget not kept.

    ``writers_first``: lock tables that refer to ours before ours. Clients lock them in
    one order or in the other, and keep us out for ever where we always take the other one.
    """
    shadow = work.made_shadow()
    expected = expect(work, guard)
    with told("what hangs on the table cannot be made beside the new one"):
        prepare_shadow(
            work.state, work.source, shadow, work.names, by_create=work.plan.create is not None
        )
    with work.connect("cutover") as session:
        # psycopg would deallocate all statements after an ALTER, those prepared below too
        session.prepare_threshold = None
        swap = swap_steps(session, work.source, shadow, work.names)
        last_keys = LastKeys(
            session, work.transform(), jobs.reload(work.state, work.job.id).copy_snapshot
        )
        last_keys.warm_up()
        prepare_inventory(session, shadow.relation, work.names)
        # what is merged now is not merged under the lock: no lingering from here on
        work.running_capture().linger = 0.0
        work.fence()
        apply_all(work)
        failpoint("cutover.prepared")
        session.autocommit = False
        xid = _begin(work, session)
        asked = time.monotonic()
        try:
            take_locks(work, session, swap, writers_first=writers_first)
            locked = time.monotonic()
            keys = _swap_under_lock(work, guard, expected, session, swap, last_keys)
        except psycopg.Error as error:
            raise _translated(work, swap, error) from error
        try:
            failpoint("cutover.before commit")
            session.commit()
            failpoint("cutover.after commit")
        except psycopg.OperationalError:
            if not outcome.committed(work, xid):
                raise NotNow("the connection broke before the swap was committed") from None
        held = Held(time.monotonic() - locked, locked - asked, keys)
        work.shadow = _with_later(work, swap)
        return held


def _with_later(work: Work, swap: Swap) -> Shadow:
    """The shadow with what this swap leaves to do: kept in the catalog, for a process may end here."""
    shadow = work.made_shadow()
    return replace(shadow, set_aside=(*shadow.set_aside, *swap.later))


def _begin(work: Work, session: Connection) -> int:
    """Open the transaction with a dead man's switch, and note its xid where its fate can be looked up."""
    budget = int(work.plan.cutover.lock_budget.total_seconds() * 1000)
    session.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
    settings = {
        "idle_in_transaction_session_timeout": 2 * budget,
        "statement_timeout": 10_000 + budget,
    }
    if session.info.server_version >= 170000:
        settings["transaction_timeout"] = 20_000 + 2 * budget
    for name, milliseconds in settings.items():
        session.execute("SELECT set_config(%s, %s, true)", (name, f"{milliseconds}ms"))
    row = session.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    jobs.store(work.state, work.job.id, swap_xid=row[0])
    return int(row[0])


def _swap_under_lock(
    work: Work,
    guard: Guard,
    expected: Expected,
    session: Connection,
    swap: Swap,
    last_keys: LastKeys,
) -> int:
    """Everything between the lock and the commit; returns how many keys were merged."""
    budget = work.plan.cutover.lock_budget.total_seconds()
    deadline = time.monotonic() + budget
    capture = work.running_capture()
    fence = capture.stream.fence()
    failpoint("cutover.locked")
    ours = {leaf.oid for leaf in work.source.leaves} | {work.source.relation.oid}
    for wanted in swap.wanted:
        if wanted.lockable and wanted.relation.oid not in ours:
            session.execute(lock_statement(wanted, wait=False))
    session.execute(
        "SELECT set_config('statement_timeout', %s, true)", (f"{int(budget * 1000)}ms",)
    )
    work.crew.run_all(
        [
            lambda: require_whole_stream(work),
            lambda: expected.require_same(work, guard),
        ]
    )
    capture.wait_for(fence, deadline - time.monotonic())
    failpoint("cutover.drained")
    keys = last_keys.apply()
    if time.monotonic() > deadline:
        raise NotNow(f"{keys} last keys took longer than lock_budget")
    with told("the swap was rolled back"):
        run_swap(session, swap)
    require_all(swap.carrying, expected.inventory, prepared_inventory(session))
    failpoint("cutover.swapped")
    if swap.later:
        jobs.store(session, work.job.id, shadow=_with_later(work, swap).to_json())
    jobs.advance(session, work.job.id, work.token, Phase.CUTOVER, Phase.LIVE)
    if time.monotonic() > deadline:
        raise NotNow("the swap took longer than lock_budget")
    return keys


def _translated(work: Work, swap: Swap, error: psycopg.Error) -> Exception:
    """What a database error in the swap transaction means for the next try."""
    if isinstance(error, pg.LockNotAvailable):
        found = blockers(
            work.state, [wanted.relation.oid for wanted in swap.wanted], "ACCESS EXCLUSIVE"
        )
        return NotNow(
            "the lock was not had: "
            + ("; ".join(map(str, found)) or "its holders have ended since")
        )
    if isinstance(
        error, pg.QueryCanceled | pg.DeadlockDetected | pg.IdleInTransactionSessionTimeout
    ):
        return NotNow(f"the swap was given up: {reason(error)}")
    if is_row_error(error):
        return NotNow(f"the last rows are refused by the new shape: {reason(error)}")
    return error


def _terminate_blockers(work: Work) -> None:
    oids = [leaf.oid for leaf in work.source.leaves]
    for blocker in blockers(work.state, oids, "ACCESS EXCLUSIVE"):
        if blocker.kind == "session" and not _ours(blocker):
            work.state.execute("SELECT pg_terminate_backend(%s)", (blocker.pid,))
            work.tell("terminated", who=str(blocker))


def _ours(blocker: Blocker) -> bool:
    return blocker.application.startswith("restructure ")


def _rest(work: Work, attempt: int) -> None:
    """Wait longer after each try, with jitter, keeping the shadow in step meanwhile."""
    pause = min(_LONGEST_PAUSE, 0.25 * 1.5**attempt) * random.uniform(0.5, 1.0)
    deadline = time.monotonic() + pause
    work.running_capture().linger = LINGER
    while time.monotonic() < deadline:
        work.control.checkpoint()
        if not apply_pending(work):
            work.breathe()


def _celebrate(work: Work, held: Held, attempt: int) -> None:
    work.phase = Phase.LIVE
    work.progress.blocked_by = None
    receipt = {
        "lock_held_ms": round(held.locked * 1000, 2),
        "lock_wait_ms": round(held.queued * 1000, 2),
        "attempts": attempt,
        "last_keys": held.last_keys,
    }
    jobs.store(work.state, work.job.id, receipt=receipt)
    work.tell("swapped", **receipt)
