"""``restructure pause`` and ``restructure resume``."""

from __future__ import annotations

import typer

from restructure.catalog import job as jobs
from restructure.catalog import schema
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.errors import UsageError


def pause(context: typer.Context, job: JobArgument) -> None:
    """Hold a job's work within a second, wherever it runs. Clients notice nothing.

    Sets a flag on the job. Changes of the table are still collected, so the slot does not fill the
    disk as long as the process that attends the job lives. Undo: resume.
    """
    _set(context, job, paused=True)


def resume(context: typer.Context, job: JobArgument) -> None:
    """Let a paused job go on, and say whether anybody attends it.

    Takes the flag off the job. Undo: pause.
    """
    _set(context, job, paused=False)


def _set(context: typer.Context, name: str, *, paused: bool) -> None:
    call = invocation(context)
    with call.session() as connection:
        job = call.job(connection, name)
        if job.ended:
            raise UsageError(
                f"job {name} is {job.phase}: there is nothing to {'pause' if paused else 'resume'}"
            )
        jobs.store(connection, job.id, paused=paused)
        attendant = schema.attendant(connection, job.id)
    word = "paused" if paused else "goes on"

    def lines() -> list[str]:
        if attendant is not None:
            return [f"Job {name} {'is ' if paused else ''}{word} (attended by {attendant})."]
        held = (
            "It will hold as soon as somebody does."
            if paused
            else "Go on with: restructure run PLAN"
        )
        return [
            f"Job {name} is {'paused' if paused else 'not paused'}, and nobody attends it. {held}"
        ]

    call.output.result(
        "pause" if paused else "resume",
        {"job": name, "phase": job.phase, "paused": paused, "attendant": attendant},
        lines,
    )
