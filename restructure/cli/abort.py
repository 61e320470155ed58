"""``restructure abort``: everything of a job goes, and the table stays as it is."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from restructure.catalog import job as jobs
from restructure.catalog import schema
from restructure.catalog.job import Job
from restructure.cli.attend import attend
from restructure.cli.invocation import Invocation, invocation
from restructure.cli.status import JobArgument
from restructure.errors import NotNow, UsageError
from restructure.model.phase import Phase, source_serves
from restructure.postgres.connect import Connection

_LEAVES_WITHIN = 60.0
"""Seconds that the process which runs the job has to stop at a safe moment."""


def abort(
    context: typer.Context,
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give a job up before its cutover or after a revert: remove all it made. Asks first.

    Drops slots, publications, the new table with its schema, and the job's state. The table that
    clients use is not touched. What was copied is lost; running the plan again starts from the
    beginning. There is no undo.
    """
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
        if found.phase == Phase.ABORTED:
            schema.drop_if_idle(connection)
            done = "was aborted already"
        else:
            _refuse_after_swap(found)
            call.confirm(
                f"Abort {job} (phase {found.phase})? Slot, publication and the shadow in schema "
                f"{found.names.shadow_schema} go; {found.source_name} stays.",
                yes=yes,
            )
            remove(call, connection, found)
            done = f"is aborted: everything it made is gone, {found.source_name} is as it was"
    call.output.result(
        "abort", {"job": job, "phase": Phase.ABORTED}, lambda: [f"Job {job} {done}."]
    )


def remove(call: Invocation, connection: Connection, job: Job) -> None:
    """Ask whoever attends the job to leave, then remove it. Raises NotNow where nobody leaves."""
    _refuse_after_swap(job)
    attendant = schema.attendant(connection, job.id)
    if attendant is not None:
        call.output.note(f"Asking the process that attends {job.name} to leave ({attendant}) …")
        jobs.store(connection, job.id, request="abort")
        _wait_until_alone(connection, job, attendant)
    attend(call, lambda runner: runner.abort(job.name))


def _wait_until_alone(connection: Connection, job: Job, attendant: str) -> None:
    deadline = time.monotonic() + _LEAVES_WITHIN
    while schema.attendant(connection, job.id) is not None:
        if time.monotonic() > deadline:
            raise NotNow(
                f"job {job.name} is still attended by {attendant} after {_LEAVES_WITHIN:.0f} s",
                hint="Stop that process, or end its session with pg_terminate_backend; "
                "then abort again.",
            )
        time.sleep(0.2)


def _refuse_after_swap(job: Job) -> None:
    phase = Phase(job.phase)
    if not source_serves(phase):
        raise UsageError(
            f"job {job.name} is {phase}: there is nothing to abort",
            hint=f"restructure finalize {job.name} drops the old table, in schema "
            f"{job.names.retired_schema}"
            + (f"; restructure revert {job.name} goes back to it." if not job.given_up else ".")
            if phase is Phase.LIVE
            else "`restructure status` shows it.",
        )
