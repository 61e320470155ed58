"""The life of a job: the table of contents of this folder."""

from __future__ import annotations

from restructure.engine.drift import Guard
from restructure.engine.work import Work
from restructure.model.names import Direction
from restructure.model.phase import Phase
from restructure.phases import catchup, copy, cutover, finalize, index, live, ready, setup
from restructure.phases.reversible import require_no_loss
from restructure.phases.way_back import drop_direction
from restructure.plan.load import LoadedPlan


def prepare(work: Work, loaded: LoadedPlan) -> None:
    """Planned and setup: what must be there before the stream can be followed."""
    if work.phase is Phase.CUTOVER:  # a runner died in it, and the server says: before the swap
        drop_direction(work, Direction.REVERSE)
        work.advance(Phase.READY if work.job.reverse is None else Phase.REVERTED)
    if work.phase is Phase.PLANNED:
        work.advance(Phase.SETUP)
    if work.phase is Phase.SETUP:
        setup.run(work, loaded)


def follow(work: Work, guard: Guard) -> None:
    """From copy to live, as far as is wanted: returns where no cutover was asked for."""
    if work.phase is Phase.REVERTED:
        live.aftermath(work)
        live.void_ours(work)
    while work.phase is not Phase.LIVE:
        work.control.checkpoint()
        if work.phase is Phase.COPY:
            copy.run(work)
        elif work.phase is Phase.INDEX:
            index.run(work)
        elif work.phase is Phase.CATCHUP:
            catchup.run(work)
        elif work.phase in (Phase.READY, Phase.REVERTED):
            if not ready.run(work):
                return
            cutover.run(work, guard)
        else:
            raise AssertionError(f"nothing to do in phase {work.phase}")


def serve(work: Work, guard: Guard | None) -> None:
    """Live, as far as is wanted: to a revert, to the end, or to where somebody leaves."""
    live.aftermath(work)
    if guard is not None and work.stay and not work.swap_wanted:
        work.tell("keeping in step", job=work.job.name)
    if guard is not None and (work.stay or work.swap_wanted) and live.follow(work):
        require_no_loss(work)
        cutover.run(work, guard)
    elif work.finalize_wanted:
        finalize.run(work)
