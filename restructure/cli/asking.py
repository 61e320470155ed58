"""Asking the process that attends a job to do something, and showing what it does."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog import journal, schema
from restructure.catalog.job import Job
from restructure.cli.attend import recorded_failure
from restructure.cli.invocation import Invocation
from restructure.cli.progress import JobView
from restructure.cli.status import progress_of
from restructure.errors import Interrupted, NotNow, UsageError
from restructure.model.phase import Phase
from restructure.postgres.connect import Connection

_LOOK_EVERY = 0.25


def ask(
    call: Invocation,
    connection: Connection,
    job: Job,
    request: str,
    word: str,
    answered: Callable[[datetime], bool] | None = None,
) -> None:
    """Ask for ``request``, called ``word`` in messages, and follow until it is done.

    That is when the job has taken another phase; or, with ``answered``, when that says so of what
    came after the moment it is given. Raises what made that process give up, NotNow where it left
    before.
    """
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    shown: datetime = row[0]
    asked = shown
    jobs.store(connection, job.id, request=request)
    attendant = schema.attendant(connection, job.id)
    call.output.note(f"Asked the process that attends {job.name} for the {word} ({attendant}).")
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
                if attendant is None or (
                    answered(asked) if answered is not None else now.request != request
                ):
                    break
                time.sleep(_LOOK_EVERY)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            f"no longer watching; the {word} is still asked for",
            hint=f"To hold it: restructure pause {job.name}. "
            f"To see how it goes: restructure status {job.name} --watch",
        ) from None
    except (psycopg.errors.UndefinedTable, jobs.LostToken):
        raise aborted(job.name) from None
    if now.phase == Phase.ABORTED:
        raise aborted(job.name)
    done = answered(asked) if answered is not None else now.phase != job.phase and not now.error
    if not done:
        _gave_up(connection, now, word)


def aborted(name: str) -> UsageError:
    return UsageError(f"job {name} was aborted", hint="Run its plan again to start over.")


def _gave_up(connection: Connection, job: Job, word: str) -> None:
    jobs.store(connection, job.id, request=None)
    if job.error is not None:
        raise recorded_failure(job.error)
    raise NotNow(
        f"the process that attended job {job.name} has left before the {word}",
        hint="Run the same command again: it will do it itself.",
    )
