"""Cutover and revert: one short transaction in which the shadow takes the source's place.

A revert is a cutover in the other direction: its source is the new table, its shadow the retired one.

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
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg

from restructure.catalog import job as jobs
from restructure.engine.applier import LastKeys
from restructure.engine.capture import LINGER
from restructure.engine.drift import Guard
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.work import Work
from restructure.errors import NotNow, RestructureError
from restructure.model.failpoint import failpoint
from restructure.model.names import Direction
from restructure.model.phase import Phase
from restructure.phases import outcome
from restructure.phases.catchup import apply_all, apply_pending
from restructure.phases.expected import Expected, expect, require_whole_stream
from restructure.phases.gates import obstacles
from restructure.phases.locking import lock_statement, take_locks, terminate_blockers
from restructure.phases.receipt import Queue, Receipt
from restructure.phases.refused_ddl import told
from restructure.phases.way_back import WayBack
from restructure.postgres.connect import Connection
from restructure.postgres.locks import blockers
from restructure.shape.carry.inventory import prepare_inventory, prepared_inventory, require_all
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import Swap, run_swap, swap_steps

_LONGEST_PAUSE = 30.0
_TERMINATE_FROM = 3
"""Failed tries after which ``terminate_blockers`` acts, where the plan allows it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One cutover or revert: the phases it leads through, and what it is called."""

    word: str
    under_way: Phase
    given_up: Phase
    done: Phase

    @classmethod
    def of(cls, work: Work) -> Turn:
        if work.direction is Direction.REVERSE:
            return cls("revert", Phase.LIVE, Phase.LIVE, Phase.REVERTED)
        return cls("cutover", Phase.CUTOVER, work.phase, Phase.LIVE)


def run(work: Work, guard: Guard) -> None:
    """Try until the swap is committed. Raises NotNow after the plan's number of attempts."""
    turn = Turn.of(work)
    way_back = WayBack.of(work)
    if turn.under_way is not work.phase:
        work.advance(turn.under_way)
    limits = work.plan.cutover
    for change in guard.besides:
        if not change.endswith(" was changed"):  # as a constraint is that the swap left to validate
            work.tell("warning", message=f"{change} since the last swap, not so in the other table")
    why = ""
    for attempt in range(1, limits.attempts + 1):
        work.progress.cutover_attempts = attempt
        try:
            found = obstacles(work, _bulk_xid(work))
        except RestructureError:
            _give_up(work, turn, way_back)
            raise
        if not found:
            try:
                way_back.prepare()
                _attempt(work, guard, turn, way_back, attempt)
            except NotNow as refused:
                found = [refused.message]
            else:
                return
        why = "; ".join(found)
        work.progress.blocked_by = why
        work.tell(f"{turn.word} not yet", attempt=attempt, why=why)
        if attempt >= _TERMINATE_FROM and limits.terminate_blockers:
            terminate_blockers(work)
        if attempt < limits.attempts:
            _rest(work, attempt)
    _give_up(work, turn, way_back)
    raise NotNow(
        f"no {turn.word} in {limits.attempts} attempts: {why}",
        hint=f"Nothing has changed for clients. Try again: restructure {turn.word} {work.job.name}",
    )


def _bulk_xid(work: Work) -> int | None:
    """Older snapshots see nothing of the copy; of a table that has served before they see all."""
    if work.direction is Direction.REVERSE:
        return None
    return jobs.reload(work.state, work.job.id).bulk_xid


def _give_up(work: Work, turn: Turn, way_back: WayBack) -> None:
    """Back, and nobody's wish is left behind: the next run shall not swap unasked."""
    way_back.drop()
    with work.state.transaction():
        jobs.store(work.state, work.job.id, request=None)
        if work.phase is not turn.given_up:
            work.advance(turn.given_up)


def _attempt(work: Work, guard: Guard, turn: Turn, way_back: WayBack, attempt: int) -> None:
    """One try. Raises NotNow where the lock is not had or the budget not kept.

    Tables that refer to ours are locked before ours in every second try. Clients lock them in
    one order or in the other, and keep us out for ever where we always take the other one.
    """
    shadow = work.made_shadow()
    expected = expect(work, guard)
    with told("what hangs on the table cannot be made beside the new one"):
        prepare_shadow(
            work.state,
            work.source,
            shadow,
            work.names,
            by_create=work.plan.create is not None,
            back=work.direction is Direction.REVERSE,
        )
    with work.connect("cutover") as session:
        # psycopg would deallocate all statements after an ALTER, those prepared below too
        session.prepare_threshold = None
        swap = swap_steps(session, work.source, shadow, work.names)
        last_keys = LastKeys(
            session,
            work.transform(),
            jobs.reload(work.state, work.job.id).copy_snapshot,
            accept_loss=work.accept_loss,
        )
        last_keys.warm_up()
        prepare_inventory(session, shadow.relation, work.names)
        way_back.prepare_turn(session, swap)
        # what is merged now is not merged under the lock: no lingering from here on
        work.running_capture().linger = 0.0
        work.fence()
        apply_all(work)
        receipt = Receipt.begin(work, turn.word, attempt, expected.inventory)
        failpoint("cutover.prepared")
        session.autocommit = False
        xid = _begin(work, session)
        asked = time.monotonic()
        try:
            take_locks(work, session, swap, writers_first=attempt % 2 == 1)
            locked = time.monotonic()
            queue = Queue()
            keys = _swap_under_lock(work, guard, expected, session, swap, last_keys, queue)
            way_back.turn(session)
            held = time.monotonic() - locked
            receipt.store(
                session, work.job.id, held=held, waited=locked - asked, keys=keys, queue=queue
            )
            jobs.advance(session, work.job.id, work.token, turn.under_way, turn.done)
            _keep_to_budget(work, locked, "the swap")
        except psycopg.Error as error:
            raise _translated(work, swap, error) from error
        try:
            failpoint("cutover.before commit")
            session.commit()
            failpoint("cutover.after commit")
        except psycopg.OperationalError:
            if not outcome.committed(work.dsn, work.job, xid, turn.done):
                raise NotNow("the connection broke before the swap was committed") from None
        held = time.monotonic() - locked
        work.phase = turn.done
        work.progress.blocked_by = None
        work.tell("swapped", **receipt.finish(work.state, work.job.id, held))


def _keep_to_budget(work: Work, locked: float, what: str) -> None:
    if time.monotonic() - locked > work.plan.cutover.lock_budget.total_seconds():
        raise NotNow(f"{what} took longer than lock_budget")


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
    queue: Queue,
) -> int:
    """Everything between the lock and the job's row; returns how many keys were merged."""
    locked = time.monotonic()
    budget = work.plan.cutover.lock_budget.total_seconds()
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
    capture.wait_for(fence, locked + budget - time.monotonic())
    failpoint("cutover.drained")
    keys = last_keys.apply()
    _keep_to_budget(work, locked, f"{keys} last keys")
    with told("the swap was rolled back"):
        _run_watched(work, session, swap, queue)
    require_all(swap.carrying, expected.inventory, prepared_inventory(session))
    failpoint("cutover.swapped")
    return keys


def _run_watched(work: Work, session: Connection, swap: Swap, queue: Queue) -> None:
    """Run the swap's statements, while the other session looks at who waits."""

    def run() -> None:
        try:
            run_swap(session, swap)
        finally:
            queue.over.set()

    ours = [member.oid for member in (work.source.relation, *work.source.leaves)]
    work.crew.run_all([run, lambda: queue.watch(work.state, ours)])


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


def _rest(work: Work, attempt: int) -> None:
    """Wait longer after each try, with jitter, keeping the shadow in step meanwhile."""
    pause = min(_LONGEST_PAUSE, 0.25 * 1.5**attempt) * random.uniform(0.5, 1.0)
    deadline = time.monotonic() + pause
    work.running_capture().linger = LINGER
    while time.monotonic() < deadline:
        work.control.checkpoint()
        if not apply_pending(work):
            work.breathe()
