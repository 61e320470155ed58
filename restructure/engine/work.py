"""One running job: everything its phases share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from restructure.catalog import job as jobs
from restructure.catalog import journal
from restructure.catalog.job import Job
from restructure.catalog.spool import Spool
from restructure.engine.applier import Applier
from restructure.engine.capture import Capture
from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.engine.transform import Transform
from restructure.model.failpoint import failpoint
from restructure.model.names import Direction, Names
from restructure.model.phase import Phase
from restructure.model.progress import Progress
from restructure.model.relation import Watched
from restructure.plan.model import Plan
from restructure.ports import Stream
from restructure.postgres.connect import Connection, connect
from restructure.shape.shadow import Shadow
from restructure.shape.table import Column, Table

REVERT, REVERT_WITH_LOSS, FINALIZE = "revert", "revert with loss", "finalize"
VERIFY, VERIFY_AND_REPAIR = "verify", "verify and repair"
"""What may be asked for through the job's row, besides "cutover" and "abort"."""

Listener = Callable[[str, str, dict[str, Any]], None]
"""Called with phase, event and detail of each journal entry."""


@dataclass(slots=True)
class Work:
    """What the phases of one job work with, in this process.

    All of it in one direction: ``source`` is the table that clients use, ``shadow`` the other
    one. ``state`` is the session that holds the job's advisory lock; only the main thread uses
    it. ``shadow`` and what follows it exist from the end of setup on.
    """

    dsn: str
    job: Job
    names: Names
    token: int
    plan: Plan
    source: Table
    watched: Watched
    kept: tuple[Column, ...]
    stream: Stream
    state: Connection
    crew: Crew
    control: Control
    listener: Listener
    phase: Phase
    progress: Progress = field(default_factory=Progress)
    shadow: Shadow | None = None
    capture: Capture | None = None
    applier: Applier | None = None
    swap_wanted: bool = False
    stay: bool = False
    finalize_wanted: bool = False
    accept_loss: bool = False
    verify_wanted: str | None = None

    @property
    def direction(self) -> Direction:
        return self.names.direction

    @property
    def spool(self) -> Spool:
        return Spool(self.names, self.source.key)

    def obey(self, request: str | None) -> None:
        """Note what another session asks for through the job's row, where it fits the direction."""
        wanted = {
            Direction.FORWARD: ("cutover",),
            Direction.REVERSE: (REVERT, REVERT_WITH_LOSS),
        }[self.direction]
        if request in wanted:
            self.accept_loss = self.accept_loss or request == REVERT_WITH_LOSS
            self.swap_wanted = True
        elif request == FINALIZE and self.direction is Direction.REVERSE:
            self.finalize_wanted = True
        elif request in (VERIFY, VERIFY_AND_REPAIR):
            self.verify_wanted = request

    def connect(self, role: str) -> Connection:
        return connect(self.dsn, job=self.job.name, role=role)

    def made_shadow(self) -> Shadow:
        assert self.shadow is not None, "the shadow is made in setup"
        return self.shadow

    def transform(self) -> Transform:
        shadow = self.made_shadow()
        return Transform(
            self.source.relation, shadow.relation, shadow.mapping, self.spool, self.kept
        )

    def running_capture(self) -> Capture:
        assert self.capture is not None, "the runner starts capture after setup"
        return self.capture

    def ready_applier(self) -> Applier:
        """The applier of this process, made on first use."""
        if self.applier is None:
            self.applier = Applier(self.transform(), self.dsn, self.job.name, self.control)
            snapshot = jobs.reload(self.state, self.job.id).copy_snapshot
            if snapshot is not None:
                self.applier.void_truncations_before(snapshot)
        return self.applier

    def tell(self, event: str, **detail: Any) -> None:
        """Write an event to the journal and to whoever listens."""
        journal.write(self.state, self.job.id, self.phase, event, detail)
        self.listener(self.phase, event, detail)

    def advance(self, new: Phase) -> None:
        """Leave the present phase for ``new``, in the caller's transaction if there is one.

        Raises LostToken where another runner has taken the job over.
        """
        with self.state.transaction():
            jobs.advance(self.state, self.job.id, self.token, self.phase, new)
            failpoint(f"advance.{new}")
        self.phase = new
        self.listener(new, "entered", {})
        failpoint(f"entered.{new}")

    def fence(self) -> None:
        """Wait until everything committed so far is in the spool."""
        self.running_capture().pass_fence()

    def breathe(self) -> None:
        """Nothing to apply: wait a moment for the stream."""
        self.control.check()
        time.sleep(0.02)
