"""Finalize: the way back is given up, and what retired is dropped."""

from __future__ import annotations

from restructure.catalog import job as jobs
from restructure.engine.work import Work
from restructure.model.failpoint import failpoint
from restructure.model.names import Direction
from restructure.model.phase import Phase
from restructure.phases.removal import remove_schema
from restructure.phases.way_back import drop_direction


def run(work: Work) -> None:
    """Drop streams, spools, retired table and everything else of the job but its history.

    Raises OperatorNeeded where somebody has built on what retired.
    """
    if work.capture is not None:
        work.capture.stop()
    jobs.store(work.state, work.job.id, given_up="the job is being finalized")
    for direction in Direction:
        drop_direction(work, direction)
    failpoint("finalize.streams")

    def announce(table: str, size: int) -> None:
        work.tell("dropping", table=table, bytes=size)

    for schema in (work.names.retired_schema, work.names.shadow_schema):
        remove_schema(work.state, schema, announce)
    with work.state.transaction():
        jobs.store(work.state, work.job.id, request=None)
        jobs.advance(work.state, work.job.id, work.token, Phase.LIVE, Phase.FINALIZED)
    work.phase = Phase.FINALIZED
    work.listener(Phase.FINALIZED, "entered", {})
