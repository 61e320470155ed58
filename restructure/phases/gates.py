"""What stands between now and a cutover, as sentences for the operator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from restructure.catalog import verification
from restructure.engine.work import Work
from restructure.errors import NotNow
from restructure.phases.catchup import FEW_KEYS, apply_all
from restructure.postgres.locks import blockers
from restructure.postgres.settled import old_snapshots

_OLD_TRANSACTION = timedelta(seconds=1)
"""A transaction that has held a lock on the table for so long will not end within a lock_timeout."""


def require_verified(work: Work) -> None:
    """Raise VerifyMismatch where rows were found to differ, or where nobody has compared them and the
    plan does not say off."""
    found = verification.load(work.state, work.job.id, work.names)
    if found is not None and found.state == "failed":
        raise verification.mismatch(work.job.name, found)
    if work.plan.verify.mode != "off" and (found is None or not found.passed):
        raise NotNow(
            "the rows were not compared yet",
            hint=f"restructure verify {work.job.name} does it; the plan's verify.mode says whether it must be.",
        )


def obstacles(work: Work, bulk_xid: int | None) -> list[str]:
    """Everything that makes a try for the lock useless or harmful now; empty if nothing does."""
    return list(_obstacles(work, bulk_xid))


def _obstacles(work: Work, bulk_xid: int | None) -> Iterator[str]:
    work.spool.retry_quarantined(work.state)
    apply_all(work)
    quarantined = work.spool.quarantined(work.state)
    if quarantined and not work.accept_loss:
        why = ", ".join(work.spool.refusals(work.state))
        yield f"{quarantined} rows are refused by the new shape: {why} (restructure status {work.job.name} lists them)"
    if work.control.throttled:
        yield work.control.throttled
    oids = [member.oid for member in (work.source.relation, *work.source.leaves)]
    for blocker in blockers(work.state, oids, "ACCESS EXCLUSIVE"):
        if blocker.kind == "wraparound":
            yield f"an anti-wraparound vacuum runs on the table: {blocker}"
        elif blocker.kind == "prepared" or (
            blocker.kind == "session"
            and (blocker.transaction_age or timedelta()) > _OLD_TRANSACTION
        ):
            yield f"waiting for {blocker}"
    yield from _stale_readers(work, bulk_xid)
    yield from _slow_stream(work)


def _stale_readers(work: Work, bulk_xid: int | None) -> Iterator[str]:
    """Whoever reads with a snapshot from before the copy's end, as the plan wants it: wait, refuse or warn."""
    if bulk_xid is None:
        return
    policy = work.plan.cutover.old_snapshots
    for snapshot in old_snapshots(work.state, bulk_xid):
        why = f"a snapshot from before the copy would find the new table empty: {snapshot}"
        if policy == "warn":
            work.tell("warning", message=why)
        elif policy == "refuse":
            raise NotNow(
                why, hint="The plan's cutover.old_snapshots is refuse: end it, or wait for it."
            )
        else:
            yield why


def _slow_stream(work: Work) -> Iterator[str]:
    """Draining under the lock takes as long as it takes now: it must fit into the budget."""
    budget = work.plan.cutover.lock_budget.total_seconds()
    try:
        spent = work.running_capture().pass_fence(timeout=max(budget, 1.0))
    except NotNow as late:
        yield late.message
        return
    if spent > budget / 2:
        yield f"the stream needs {spent * 1000:.0f} ms for a round trip, more than half of lock_budget"
    apply_all(work)
    pending = work.spool.pending(work.state)
    if pending > FEW_KEYS:
        forecast = work.progress.forecast
        yield f"{pending:,} keys are pending" + (f" ({forecast})" if forecast else "")
