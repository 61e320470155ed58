"""The watch: one thread that looks at everything a running job must react to.

Requests from other sessions, the throttle, the slot's WAL, drift of the source; and it
publishes the job's progress.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from restructure.catalog import job as jobs
from restructure.catalog.job import LostToken
from restructure.engine.drift import Guard, spare_clients
from restructure.engine.forecast import Forecaster
from restructure.engine.throttle import SlotGivenUp, judge, size, wal_limit
from restructure.engine.work import Work
from restructure.errors import Interrupted, OperatorNeeded, SchemaDrift, StreamGap
from restructure.model.phase import ENDED, Phase, direction
from restructure.model.progress import Progress
from restructure.postgres.connect import Connection

_REQUESTS_EVERY = 0.25
_HEALTH_EVERY = 1.0
_PROGRESS_EVERY = 2.0

ProgressListener = Callable[[Phase, Progress], None]


class Watch:
    """Runs beside the phases of one job, on a session of its own.

    ``guard`` is set once setup has made the fingerprint to compare with.
    """

    def __init__(self, work: Work, listener: ProgressListener) -> None:
        self._work = work
        self.guard: Guard | None = None
        self._listener = listener
        self._forecaster = Forecaster()
        self._stored: dict[str, object] = {}

    def start(self) -> None:
        self._work.crew.start("watch", self._run)

    def _run(self) -> None:
        health = progress = 0.0
        with self._work.connect("watch") as connection:
            while not self._work.crew.stopping.wait(_REQUESTS_EVERY):
                self._obey(connection)
                self._work.control.enforce()
                now = time.monotonic()
                if now - health >= _HEALTH_EVERY:
                    health = now
                    self._look_before_swap(connection, now)
                    self._listener(self._work.phase, self._work.progress)
                if now - progress >= _PROGRESS_EVERY:
                    progress = now
                    self._publish(connection)

    def _obey(self, connection: Connection) -> None:
        """Pause, resume, cut over or stop as other sessions ask through the job's row."""
        row = jobs.reload(connection, self._work.job.id)
        if row.token != self._work.token:
            raise LostToken("another runner has taken the job over")
        control = self._work.control
        if row.paused != control.paused.is_set():
            control.pause() if row.paused else control.resume()
            self._work.listener(self._work.phase, "paused" if row.paused else "resumed", {})
        if row.request == "abort":
            raise Interrupted("abort was asked for from another session")
        self._work.obey(row.request)

    def _look_before_swap(self, connection: Connection, now: float) -> None:
        """Look, unless the swap is done: it moves the table and drops the stream, as it should.

        The job's row, which commits with the swap, says so for certain.
        """
        if self._work.capture is None or self._turned(self._work.phase):
            return
        try:
            self._look(connection, now)
        except OperatorNeeded as error:
            row = jobs.reload(connection, self._work.job.id)
            if self._turned(Phase(row.phase)) or row.given_up:
                return
            self._work.crew.fail(error)
            if isinstance(error, SchemaDrift):
                spare_clients(connection, self._work.source, self._work.stream)

    def _turned(self, phase: Phase) -> bool:
        """Whether this direction has ended."""
        return phase in ENDED or direction(phase) is not self._work.direction

    def _look(self, connection: Connection, now: float) -> None:
        work = self._work
        lag = work.stream.lag()
        if not lag.healthy:
            raise StreamGap(
                f"the stream is lost: {lag.reason}",
                hint=f"Changes may be missing. Start over: restructure abort {work.job.name}, then run the plan again.",
            )
        limit = wal_limit(work.plan.throttle)
        if limit is not None and lag.retained_bytes > limit:
            self._give_up(lag.retained_bytes, limit)
            return
        verdict = judge(connection, work.plan.throttle, lag)
        work.control.throttled, work.control.slowed = verdict.hold, verdict.slow
        if self.guard is not None:
            self.guard.check(connection)
        self._measure(connection, now, lag.lag_bytes, lag.retained_bytes)

    def _give_up(self, retained: int, limit: int) -> None:
        """Everybody learns why first: the reader, whose slot goes, would only see it missing."""
        work = self._work
        work.crew.fail(
            SlotGivenUp(
                f"the slot retained {size(retained)} of WAL, more than {size(limit)}: it was dropped, "
                "so that the server's disk does not fill",
                hint=f"Start over when there is room: restructure abort {work.job.name}, then run the plan again.",
            )
        )
        work.stream.drop()

    def _measure(self, connection: Connection, now: float, lag_bytes: int, retained: int) -> None:
        work = self._work
        progress = work.progress
        spool = work.spool
        progress.pending_keys, progress.lag_seconds = spool.backlog(connection)
        progress.lag_bytes = lag_bytes
        progress.slot_retained_bytes = retained
        progress.quarantined_keys = spool.quarantined(connection)
        progress.throttled = work.control.throttled or work.control.slowed
        if work.capture is not None:
            progress.captured_keys = work.capture.stored_keys
        if work.applier is not None:
            progress.applied_keys = work.applier.applied_keys
        self._predict(now)

    def _predict(self, now: float) -> None:
        work, progress = self._work, self._work.progress
        progress.eta_seconds = progress.forecast = None
        if work.phase is Phase.COPY:
            self._forecaster.add(now, 0, progress.blocks_copied)
            forecast = self._forecaster.forecast(progress.blocks_total - progress.blocks_copied)
        elif work.phase in (Phase.CATCHUP, Phase.READY):
            self._forecaster.add(now, progress.captured_keys, progress.applied_keys)
            forecast = self._forecaster.forecast(progress.pending_keys)
            progress.forecast = str(forecast) if forecast else None
        else:
            self._forecaster = Forecaster()
            return
        if forecast is not None:
            progress.eta_seconds = forecast.seconds

    def _publish(self, connection: Connection) -> None:
        """Write progress where ``status`` reads it, only when it changed: an idle job writes no WAL."""
        now = self._work.progress.as_json()
        shown = {
            name: value
            for name, value in now.items()
            if name not in ("lag_bytes", "slot_retained_bytes")
        }
        if shown != self._stored:
            jobs.store(connection, self._work.job.id, progress=now)
            self._stored = shown
