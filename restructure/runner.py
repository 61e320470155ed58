"""The runner: attends one job in this process, from wherever it is, as far as was asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog import schema, spool
from restructure.catalog.job import Job, LostToken
from restructure.engine.capture import Capture
from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.engine.drift import Guard, spare_clients
from restructure.engine.watch import ProgressListener, Watch
from restructure.engine.work import Listener, Work
from restructure.errors import (
    Interrupted,
    NotNow,
    RestructureError,
    Retryable,
    SchemaDrift,
    StreamGap,
)
from restructure.model.phase import Phase, before_swap
from restructure.phases import abort, live, walk
from restructure.phases.preflight import preflight, refuse, refuse_another_plan
from restructure.plan.load import LoadedPlan, parse_plan
from restructure.ports import find_stream
from restructure.postgres.connect import Connection, connect
from restructure.shape.fingerprint import Fingerprint
from restructure.shape.shadow import Shadow
from restructure.shape.table import Table, read_relation

_RETRY_FOR = 120.0
"""Seconds without success after which a lost database is left to the operator (exit 5)."""

_ATTEND_FOR = 10.0
"""Seconds to wait for the session of a runner that was just killed to be noticed by the server."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How far a job is to go. ``stay``: at ready, keep the shadow in step until told otherwise."""

    cutover: bool = False
    stay: bool = False
    finalize: bool = False


class Runner:
    """Runs one job. :meth:`stop` may be called from a signal handler."""

    def __init__(self, dsn: str, listener: Listener, progress: ProgressListener) -> None:
        self._dsn = dsn
        self._listener = listener
        self._progress = progress
        self._control: Control | None = None
        self._stopped: str | None = None

    def stop(self, reason: str) -> None:
        """Stop at the next safe moment; :meth:`run` then raises Interrupted."""
        self._stopped = reason
        if self._control is not None:
            self._control.stop(reason)

    def run(self, loaded: LoadedPlan, wish: Wish) -> Job:
        """Start or resume the plan's job. Raises what errors.py lists; trying again is always safe."""
        return self._persist(lambda: self._start(loaded, wish))

    def attend(self, name: str, wish: Wish) -> Job:
        """Resume a job that exists, by its name, with the plan it was last given."""

        def attempt() -> Job:
            with self._session() as state:
                job = jobs.load(state, name)
                return self._go(state, job, parse_plan(job.plan, job.plan_file), wish)

        return self._persist(attempt)

    def abort(self, name: str) -> None:
        """Remove a job and all it made. The source is untouched."""
        with self._session() as state:
            job = jobs.load(state, name)
            _attend(state, job)
            abort.run(state, self._dsn, jobs.reload(state, job.id), jobs.take_over(state, job.id))

    def _persist(self, attempt: Callable[[], Job]) -> Job:
        """Try again while the database is away: everything that matters is in the catalog."""
        failing_since: float | None = None
        pause = 0.5
        while True:
            began = time.monotonic()
            try:
                return attempt()
            except (Retryable, psycopg.OperationalError, psycopg.InterfaceError) as error:
                if time.monotonic() - began > _RETRY_FOR:
                    failing_since, pause = None, 0.5
                failing_since = failing_since or time.monotonic()
                if time.monotonic() - failing_since > _RETRY_FOR:
                    raise _given_up(error) from error
                self._listener("", "connection lost, trying again", {"error": type(error).__name__})
                self._rest(pause)
                pause = min(pause * 2, 10.0)

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._stopped is not None:
                raise Interrupted(self._stopped)
            time.sleep(0.1)

    def _session(self, name: str = "-") -> contextlib.AbstractContextManager[Connection]:
        return connect(self._dsn, job=name, role="main")

    def _start(self, loaded: LoadedPlan, wish: Wish) -> Job:
        plan = loaded.plan
        with self._session(plan.name) as state:
            job = jobs.find(state, plan.name) if schema.exists(state) else None
            if job is None or job.ended:
                found = preflight(state, self._dsn, loaded)
                refuse(found.findings)
                for finding in found.findings:
                    self._listener(
                        Phase.PLANNED, "warning", {"message": finding.message, "hint": finding.hint}
                    )
                schema.ensure(state)
                job = jobs.create(
                    state,
                    name=plan.name,
                    plan=loaded.source,
                    plan_file=loaded.file,
                    digest=loaded.digest,
                    source=found.source.relation.oid,
                    source_name=str(found.source.relation),
                )
            else:
                refuse_another_plan(job, loaded)
                jobs.store(state, job.id, plan=loaded.source, plan_file=loaded.file)
            return self._go(state, job, loaded, wish)

    def _go(self, state: Connection, job: Job, loaded: LoadedPlan, wish: Wish) -> Job:
        _attend(state, job)
        job = jobs.reload(state, job.id)
        if job.ended:
            return job
        crew = Crew()
        self._control = Control(crew)
        if self._stopped is not None:
            raise Interrupted(self._stopped)
        work = Work(
            dsn=self._dsn,
            job=job,
            token=jobs.take_over(state, job.id),
            plan=loaded.plan,
            source=_source(state, job),
            stream=find_stream(loaded.plan.stream["kind"])(
                self._dsn, job.names, loaded.plan.stream
            ),
            state=state,
            crew=crew,
            control=self._control,
            listener=self._listener,
            phase=Phase(job.phase),
            shadow=Shadow.from_json(job.shadow) if job.shadow else None,
            cutover_wanted=wish.cutover or job.request == "cutover",
            stay_ready=wish.stay,
        )
        try:
            self._walk(work, loaded, wish)
        except BaseException as error:
            failure = crew.failure or error
            crew.dismiss()
            if _nothing_begun(work, failure):
                with contextlib.suppress(psycopg.Error, RestructureError):
                    abort.run(state, self._dsn, jobs.reload(state, job.id), work.token)
            else:
                _note(work, failure)
            raise failure from None if failure is error else error
        finally:
            crew.dismiss()
            work.stream.close()  # again: the watch may have asked for its lag since
            if work.applier is not None:
                work.applier.close()
        return jobs.reload(state, job.id)

    def _walk(self, work: Work, loaded: LoadedPlan, wish: Wish) -> None:
        watch = Watch(work, self._progress)
        if work.phase is Phase.CUTOVER:
            walk.settle_swap(work)
        if before_swap(work.phase):
            watch.start()
            walk.prepare(work, loaded)
            watch.guard = guard = _guard(work)
            _start_capture(work)
            try:
                walk.follow(work, guard)
            except psycopg.Error:
                _explain(work, guard)
                raise
        elif work.phase is Phase.LIVE:
            live.run(work)
        if wish.finalize and work.phase is Phase.LIVE:
            live.finalize(work)


def _attend(state: Connection, job: Job) -> None:
    """Become the job's one runner. Raises NotNow while another one is alive."""
    deadline = time.monotonic() + _ATTEND_FOR
    while not schema.try_attend(state, job.id):
        if time.monotonic() > deadline:
            raise NotNow(
                f"job {job.name} is attended by {schema.attendant(state, job.id) or 'another process'}",
                hint="One process runs a job at a time. `restructure status` shows how far it is, "
                f"`restructure cutover {job.name}` asks that process to swap.",
            )
        time.sleep(0.1)


def _source(state: Connection, job: Job) -> Table:
    row = state.execute("SELECT FROM pg_class WHERE oid = %s", (job.source,)).fetchone()
    if row is None:
        raise SchemaDrift(
            f"table {job.source_name} was dropped",
            hint=f"restructure abort {job.name} removes what is left of the job.",
        )
    return read_relation(state, job.source)


def _guard(work: Work) -> Guard:
    stored = jobs.reload(work.state, work.job.id).fingerprint
    assert stored is not None, "setup stores the fingerprint with the shadow"
    guard = Guard(work.source, Fingerprint.from_json(stored), work.job.id)
    try:
        guard.check(work.state)
    except SchemaDrift:
        spare_clients(work.state, work.source, work.stream)
        raise
    return guard


def _explain(work: Work, guard: Guard) -> None:
    """Raise SchemaDrift where a statement failed because the source is not what it was.

    A dropped column makes the copy fail before the watch has seen why.
    """
    with contextlib.suppress(psycopg.Error, Retryable), work.connect("drift") as session:
        if before_swap(Phase(jobs.reload(session, work.job.id).phase)):
            guard.check(session)


def _start_capture(work: Work) -> None:
    """Begin to follow the stream where the catalog says we are. Raises StreamGap where that is lost."""
    position = spool.stored_position(work.state, work.job.id)
    if position is None:
        raise StreamGap(
            "the stream's position is not in the catalog", hint="Abort the job and start over."
        )
    capture = Capture(work.stream, work.spool, work.dsn, work.job.id, work.job.name, work.control)
    work.capture = capture
    capture.start(work.watched, position)


def _nothing_begun(work: Work, failure: BaseException) -> bool:
    """Whether setup was refused: then all is put back, for there is nothing yet to resume."""
    return (
        work.phase in (Phase.PLANNED, Phase.SETUP)
        and isinstance(failure, RestructureError)
        and not isinstance(failure, Interrupted | Retryable | LostToken)
    )


def _note(work: Work, error: BaseException) -> None:
    """Leave the reason where ``status`` finds it, if the database can still be reached."""
    if isinstance(error, RestructureError) and not isinstance(error, Interrupted | LostToken):
        with contextlib.suppress(psycopg.Error):
            jobs.store(
                work.state,
                work.job.id,
                error={"kind": type(error).__name__, "message": error.message, "hint": error.hint},
            )


def _given_up(error: Exception) -> Retryable:
    if isinstance(error, Retryable):
        return error
    return Retryable(
        f"the database has not been usable for {_RETRY_FOR:.0f} s: {type(error).__name__}",
        hint="Nothing is lost: run the same command again when it is back.",
    )
