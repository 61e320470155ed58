"""The life of a job from setup to live: the table of contents of this folder."""

from __future__ import annotations

from restructure.catalog import job as jobs
from restructure.engine.drift import Guard
from restructure.engine.work import Work
from restructure.model.phase import Phase
from restructure.phases import catchup, copy, cutover, index, live, outcome, ready, setup
from restructure.plan.load import LoadedPlan


def prepare(work: Work, loaded: LoadedPlan) -> None:
    """Planned and setup: what must be there before the stream can be followed."""
    if work.phase is Phase.PLANNED:
        work.advance(Phase.SETUP)
    if work.phase is Phase.SETUP:
        setup.run(work, loaded)


def settle_swap(work: Work) -> None:
    """A runner died in cutover: wait until the server knows the fate of its swap, then go back to ready."""
    row = jobs.reload(work.state, work.job.id)
    if row.swap_xid is not None and outcome.committed(work, row.swap_xid):
        work.phase = Phase(jobs.reload(work.state, work.job.id).phase)
    if work.phase is Phase.CUTOVER:
        work.advance(Phase.READY)


def follow(work: Work, guard: Guard) -> None:
    """From copy to live, as far as is wanted: returns in ready where no cutover was asked for."""
    while work.phase is not Phase.LIVE:
        work.control.checkpoint()
        if work.phase is Phase.COPY:
            copy.run(work)
        elif work.phase is Phase.INDEX:
            index.run(work)
        elif work.phase is Phase.CATCHUP:
            catchup.run(work)
        elif work.phase is Phase.READY:
            if not ready.run(work):
                return
            cutover.run(work, guard)
        else:
            raise AssertionError(f"nothing to do in phase {work.phase}")
    live.run(work)
