"""``restructure cutover``: the swap, done here or asked of the process that attends the job."""

from __future__ import annotations

import time
from datetime import datetime

import psycopg
import typer

from restructure.catalog import job as jobs
from restructure.catalog import journal, schema
from restructure.catalog.job import Job
from restructure.cli.attend import attend, recorded_failure, report
from restructure.cli.invocation import Invocation, invocation
from restructure.cli.progress import JobView
from restructure.cli.status import JobArgument, progress_of
from restructure.errors import Interrupted, NotNow, UsageError
from restructure.model.phase import Phase, before_swap
from restructure.postgres.connect import Connection
from restructure.runner import Wish

_LOOK_EVERY = 0.25


def cutover(context: typer.Context, job: JobArgument) -> None:
    """Swap the new table in, as soon as the shadow is ready.

    Locks the table for some milliseconds in one transaction, as often as the plan's
    `cutover.attempts` allows, and says who stands in the way. Whatever fails rolls back, and
    clients go on with the old table.

    If a process attends the job already, it is asked to do it and this command shows how it goes;
    else this command does it. Afterwards the old table is kept in a schema of its own until it is
    finalized.
    """
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
        if found.phase == Phase.ABORTED:
            raise _aborted(job)
        if before_swap(Phase(found.phase)):
            if found.paused:
                raise NotNow(f"job {job} is paused", hint=f"First: restructure resume {job}")
            if schema.attendant(connection, found.id) is not None:
                _follow(call, connection, found)
            else:
                attend(call, lambda runner: runner.attend(job, Wish(cutover=True)))
        elif found.phase == Phase.LIVE and not _finished(connection, found):
            attend(call, lambda runner: runner.attend(job, Wish()))
    report(call, "cutover", job)


def _follow(call: Invocation, connection: Connection, job: Job) -> None:
    """Ask the process that attends the job, and show what it does until the new table serves.

    Raises what made that process give up.
    """
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    shown: datetime = row[0]
    jobs.store(connection, job.id, request="cutover")
    attendant = schema.attendant(connection, job.id)
    call.output.note(f"Asked the process that attends {job.name} for the cutover ({attendant}).")
    try:
        with JobView(call.output) as view:
            while True:
                attendant = schema.attendant(connection, job.id)
                now = jobs.reload(connection, job.id)
                for entry in journal.recent(connection, job.id, 50):
                    if entry.at > shown:
                        shown = entry.at
                        view.event(entry.phase, entry.event, entry.detail)
                view.progress(Phase(now.phase), progress_of(now.progress))
                if attendant is None or now.request != "cutover":
                    break
                time.sleep(_LOOK_EVERY)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            "no longer watching; the cutover is still asked for",
            hint=f"To hold it: restructure pause {job.name}. "
            f"To see how it goes: restructure status {job.name} --watch",
        ) from None
    except psycopg.errors.UndefinedTable:
        raise _aborted(job.name) from None
    if now.phase == Phase.ABORTED:
        raise _aborted(job.name)
    if before_swap(Phase(now.phase)):
        _gave_up(connection, now)


def _finished(connection: Connection, job: Job) -> bool:
    """Whether the swap's aftermath was seen to: a runner may have died right after the commit."""
    if schema.attendant(connection, job.id) is not None:
        return True
    return any(entry.event == "done" for entry in journal.recent(connection, job.id, 100))


def _aborted(name: str) -> UsageError:
    return UsageError(f"job {name} was aborted", hint="Run its plan again to start over.")


def _gave_up(connection: Connection, job: Job) -> None:
    jobs.store(connection, job.id, request=None)
    if job.error is not None:
        raise recorded_failure(job.error)
    raise NotNow(
        f"the process that attended job {job.name} has left before the cutover",
        hint="Run the same command again: it will do the cutover itself.",
    )
