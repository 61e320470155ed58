"""Ready: verify once, then keep the shadow in step until somebody asks for the cutover."""

from __future__ import annotations

import contextlib
import time

from restructure.catalog import job as jobs
from restructure.engine.work import VERIFY, VERIFY_AND_REPAIR, Work
from restructure.errors import NotNow, Retryable, VerifyMismatch
from restructure.model.phase import Phase
from restructure.phases.catchup import apply_pending
from restructure.phases.gates import require_verified
from restructure.phases.reverify import Reverifier
from restructure.phases.verify import Verifying

RETRY_QUARANTINE_EVERY = 10.0
"""Seconds after which rows that the new shape refused are tried again: their owner may have corrected them."""


def run(work: Work) -> bool:
    """Follow until a cutover is wanted; True for that, False where nobody asked to stay.

    Raises VerifyMismatch where rows differ, and nobody asked to stay all the same.
    """
    with contextlib.closing(Verifying(work, _compared(work))) as verifying:
        if work.verify_wanted is None and _due(work, verifying):
            work.verify_wanted = VERIFY
        while True:
            if work.verify_wanted is not None:
                _verify(work, verifying)
            elif work.swap_wanted:
                if _due(work, verifying):
                    _verify(work, verifying)
                if _allowed(work):
                    return True
            elif not work.stay:
                return False
            else:
                _follow(work, verifying)


def _compared(work: Work) -> set[str] | None:
    """After a revert, the columns that both tables hold: the others may have been written by clients
    while the new table served, and the way back does not carry them."""
    shadow = work.made_shadow()
    back = shadow.back.mapping if shadow.back is not None else None
    if work.job.swapped_at is None or back is None:
        return None
    returned = {(column.name, column.origin) for column in back.filled}
    return {c.name for c in shadow.mapping.filled if (c.origin, c.name) in returned}


def _due(work: Work, verifying: Verifying) -> bool:
    """Whether the plan wants a verification, and none has come to its end."""
    if work.plan.verify.mode == "off" or work.phase is not Phase.READY:
        return False
    state = verifying.state()
    return state is None or state.state in ("running", "undecided")


def _verify(work: Work, verifying: Verifying) -> None:
    """Once, as asked for; what it finds is in the catalog for those who asked from elsewhere."""
    repairing = work.verify_wanted == VERIFY_AND_REPAIR
    if jobs.reload(work.state, work.job.id).request in (VERIFY, VERIFY_AND_REPAIR):
        jobs.store(work.state, work.job.id, request=None)
    try:
        verifying.run(repairing=repairing)
    except (VerifyMismatch, NotNow) as answer:
        if isinstance(answer, Retryable) or not work.stay:
            raise
    finally:
        work.verify_wanted = None


def _allowed(work: Work) -> bool:
    """Whether what is known lets the cutover go on.

    Raises VerifyMismatch or NotNow if not; a process that stays only tells so to who asked for it.
    """
    try:
        require_verified(work)
    except (VerifyMismatch, NotNow) as refused:
        asked = jobs.reload(work.state, work.job.id).request is not None
        told = {"kind": type(refused).__name__, "message": refused.message, "hint": refused.hint}
        jobs.store(work.state, work.job.id, request=None, error=told)
        if not (asked and work.stay):
            raise
        work.tell("cutover refused", why=refused.message)
        work.swap_wanted = False
        return False
    return True


def _follow(work: Work, verifying: Verifying) -> None:
    """Apply what comes, until somebody wants something; compare again what has changed meanwhile."""
    retried = time.monotonic()
    with Reverifier(work, verifying) as reverifier:
        while work.stay and not work.swap_wanted and work.verify_wanted is None:
            work.control.checkpoint()
            if time.monotonic() - retried > RETRY_QUARANTINE_EVERY:
                work.spool.retry_quarantined(work.state)
                retried = time.monotonic()
            reverifier.judge()
            if not apply_pending(work):
                work.breathe()
