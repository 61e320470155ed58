"""The runner: attends one job in this process, from wherever it is, as far as was asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog import schema, spool
from restructure.catalog.job import Job, LostToken
from restructure.engine.capture import Capture
from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.engine.drift import Guard, spare_clients
from restructure.engine.sides import sides
from restructure.engine.watch import ProgressListener, Watch
from restructure.engine.work import VERIFY, VERIFY_AND_REPAIR, Listener, Work
from restructure.errors import (
    Interrupted,
    NotNow,
    RestructureError,
    Retryable,
    SchemaDrift,
    StreamGap,
    VerifyMismatch,
)
from restructure.model.names import Direction, Names
from restructure.model.phase import Phase, direction, source_serves
from restructure.model.wish import Wish
from restructure.phases import abort, outcome, walk, way_back
from restructure.phases.preflight import preflight, refuse, refuse_another_plan
from restructure.plan.load import LoadedPlan, parse_plan
from restructure.ports import find_stream
from restructure.postgres.connect import Connection, connect
from restructure.shape.fingerprint import Fingerprint

_RETRY_FOR = 120.0
"""Seconds without success after which a lost database is left to the operator (exit 5)."""

_ATTEND_FOR = 10.0
"""Seconds to wait for the session of a runner that was just killed to be noticed by the server."""


class Runner:
    """Runs one job. :meth:`stop` may be called from a signal handler."""

    def __init__(self, dsn: str, listener: Listener, progress: ProgressListener) -> None:
        self._dsn = dsn
        self._listener = listener
        self._progress = progress
        self._control: Control | None = None
        self._stopped: str | None = None
        self._wish = Wish()

    def stop(self, reason: str) -> None:
        """Stop at the next safe moment; :meth:`run` then raises Interrupted."""
        self._stopped = reason
        if self._control is not None:
            self._control.stop(reason)

    def run(self, loaded: LoadedPlan, wish: Wish) -> Job:
        """Start or resume the plan's job. Raises what errors.py lists; trying again is always safe."""
        self._wish = wish
        return self._persist(lambda: self._start(loaded))

    def attend(self, name: str, wish: Wish) -> Job:
        """Resume a job that exists, by its name, with the plan it was last given."""
        self._wish = wish

        def attempt() -> Job:
            with self._session() as state:
                job = jobs.load(state, name)
                return self._go(state, job, parse_plan(job.plan, job.plan_file))

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

    def _start(self, loaded: LoadedPlan) -> Job:
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
            return self._go(state, job, loaded)

    def _go(self, state: Connection, job: Job, loaded: LoadedPlan) -> Job:
        """One direction after the other, as far as is wanted: each swap turns them."""
        _attend(state, job)
        while True:
            job = outcome.settle(self._dsn, state, jobs.reload(state, job.id))
            if job.ended:
                return job
            self._go_one_way(state, job, loaded)
            before, job = job.direction, jobs.reload(state, job.id)
            if job.ended or job.direction is before:
                return job
            # what was wanted is done; a try after a lost connection must not do it again
            self._wish = replace(self._wish, cutover=False, revert=False, accept_loss=False)

    def _go_one_way(self, state: Connection, job: Job, loaded: LoadedPlan) -> None:
        crew = Crew()
        self._control = Control(crew)
        if self._stopped is not None:
            raise Interrupted(self._stopped)
        work = self._work(state, job, loaded, self._control)
        try:
            if source_serves(work.phase):
                self._to_cutover(work, loaded)
            else:
                self._after_cutover(work)
        except BaseException as error:
            failure = crew.failure or error
            crew.dismiss()
            if _nothing_begun(work, failure):
                with contextlib.suppress(psycopg.Error, RestructureError):
                    abort.run(state, self._dsn, jobs.reload(state, job.id), work.token)
            else:
                told = way_back.lost(work, failure)
                _note(work, told)
                if told is not failure:
                    raise told from failure
            raise failure from None if failure is error else error
        finally:
            crew.dismiss()
            work.stream.close()  # again: the watch may have asked for its lag since
            if work.applier is not None:
                work.applier.close()

    def _work(self, state: Connection, job: Job, loaded: LoadedPlan, control: Control) -> Work:
        wish = self._wish
        names = Names.of(job.name, job.direction)
        found = sides(state, job, job.direction)
        work = Work(
            dsn=self._dsn,
            job=job,
            names=names,
            token=jobs.take_over(state, job.id),
            plan=loaded.plan,
            source=found.source,
            watched=found.watched,
            kept=found.kept,
            stream=find_stream(loaded.plan.stream["kind"])(self._dsn, names, loaded.plan.stream),
            state=state,
            crew=control.crew,
            control=control,
            listener=self._listener,
            phase=Phase(job.phase),
            shadow=found.shadow,
            swap_wanted=wish.cutover if names.direction is Direction.FORWARD else wish.revert,
            stay=wish.stay,
            finalize_wanted=wish.finalize,
            accept_loss=wish.accept_loss,
        )
        if wish.verify:
            work.verify_wanted = VERIFY_AND_REPAIR if wish.repair else VERIFY
        work.obey(job.request)
        return work

    def _to_cutover(self, work: Work, loaded: LoadedPlan) -> None:
        watch = Watch(work, self._progress)
        watch.start()
        walk.prepare(work, loaded)
        watch.guard = guard = _guard(work)
        _start_capture(work)
        try:
            walk.follow(work, guard)
        except (psycopg.Error, VerifyMismatch):
            _explain(work, guard)
            raise

    def _after_cutover(self, work: Work) -> None:
        guard = None
        if work.job.reverse is not None and work.job.given_up is None and not work.finalize_wanted:
            watch = Watch(work, self._progress)
            watch.start()
            watch.guard = guard = _guard(work)
            _start_capture(work)
        walk.serve(work, guard)


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


def _guard(work: Work) -> Guard:
    stored = jobs.reload(work.state, work.job.id).fingerprint
    assert stored is not None, "setup stores the fingerprint with the shadow"
    guard = Guard(
        work.source,
        Fingerprint.from_json(stored),
        work.job.id,
        swapped=work.job.swapped_at is not None,
    )
    try:
        guard.check(work.state)
    except SchemaDrift:
        spare_clients(work.state, work.source, work.stream)
        raise
    return guard


def _explain(work: Work, guard: Guard) -> None:
    """Raise SchemaDrift where something failed because the source is not what it was.

    A dropped column makes the copy fail, a new partition makes rows differ, before the watch has
    seen why.
    """
    with contextlib.suppress(psycopg.Error, Retryable), work.connect("drift") as session:
        if direction(Phase(jobs.reload(session, work.job.id).phase)) is work.direction:
            guard.check(session)


def _start_capture(work: Work) -> None:
    """Begin to follow the stream where the catalog says we are. Raises StreamGap where that is lost."""
    position = spool.stored_position(work.state, work.job.id, work.direction)
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
