"""Whether a revert would lose anything now."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog.job import Job
from restructure.catalog.spool import Spool
from restructure.engine.work import Work
from restructure.errors import LossyRevert
from restructure.model.names import Direction, Names
from restructure.phases.catchup import apply_all
from restructure.postgres.connect import Connection
from restructure.shape.made import Shadow


@dataclass(frozen=True, slots=True)
class Loss:
    """``keys`` that the old shape cannot hold, and why; old ``columns`` that nothing fills any more."""

    keys: int
    reasons: tuple[str, ...]
    columns: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.keys or self.columns)

    def __str__(self) -> str:
        parts = []
        if self.keys:
            word = "row" if self.keys == 1 else "rows"
            why = ", ".join(self.reasons)
            parts.append(f"{self.keys:,} {word} that the old shape cannot hold ({why})")
        if self.columns:
            parts.append(
                f"what was written since the cutover of {', '.join(self.columns)} (the plan's reverse"
                " does not say how to make that from the new row)"
            )
        return " and ".join(parts) or "nothing"


def loss(connection: Connection, job: Job) -> Loss:
    """What a revert of this job, which is live, would lose as far as it is known."""
    spool = Spool(Names.of(job.name, Direction.REVERSE), ())
    back = Shadow.from_json(job.shadow).back if job.shadow else None
    columns = back.lost if back is not None else ()
    try:
        with connection.transaction():
            return Loss(spool.quarantined(connection), tuple(spool.refusals(connection)), columns)
    except psycopg.errors.UndefinedTable:
        return Loss(0, (), columns)


def require_no_loss(work: Work) -> None:
    """Bring the retired table up to now. Raises LossyRevert where that is not possible and not accepted."""
    work.spool.retry_quarantined(work.state)
    work.fence()
    apply_all(work)
    would_lose = loss(work.state, jobs.reload(work.state, work.job.id))
    if would_lose and not work.accept_loss:
        jobs.store(work.state, work.job.id, request=None)
        work.swap_wanted = False
        raise LossyRevert(
            f"a revert would lose {would_lose}",
            hint=f"restructure status {work.job.name} lists the keys. Correct them, or, if that loss "
            f"is meant: restructure revert {work.job.name} --accept-loss",
        )
