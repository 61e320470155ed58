"""``restructure verify``: compare all rows, here or in the process that attends the job."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from restructure.catalog import schema, verification, verified
from restructure.catalog.job import Job
from restructure.catalog.verification import Verification
from restructure.cli import words
from restructure.cli.asking import ask
from restructure.cli.attend import attend
from restructure.cli.invocation import Invocation, invocation
from restructure.cli.status import JobArgument
from restructure.engine.work import VERIFY, VERIFY_AND_REPAIR
from restructure.errors import NotNow, UsageError
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.postgres.connect import Connection


def verify(
    context: typer.Context,
    job: JobArgument,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Make the rows that differ anew from the table, and compare them again.",
        ),
    ] = False,
) -> None:
    """Compare the new table with what the transform makes of the old one, row by row, bit by bit.

    Reads both tables by ranges of keys, throttled as the copy is, while clients write and changes are
    applied; what is still under way is never taken for damage. Exit code 4 and a list of keys where rows
    differ. Locks nothing, changes nothing without --repair. After a revert only the columns that both
    tables hold are compared.

    If a process attends the job already, it is asked to do it and this command shows how it goes;
    else this command does it.
    """
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
        _require_ready(found)
        if schema.attendant(connection, found.id) is not None:
            ask(
                call,
                connection,
                found,
                VERIFY_AND_REPAIR if repair else VERIFY,
                "verification",
                answered=lambda asked: _answered(connection, found, asked),
            )
        else:
            attend(call, lambda runner: runner.attend(job, Wish(verify=True, repair=repair)))
        _report(call, connection, found)


def _require_ready(job: Job) -> None:
    if job.phase in (Phase.PLANNED, Phase.SETUP, Phase.COPY, Phase.INDEX, Phase.CATCHUP):
        raise NotNow(
            f"job {job.name} is in phase {job.phase}: there is nothing to compare before it is ready",
            hint="restructure run PLAN takes it there, and verifies by itself.",
        )
    if job.phase == Phase.CUTOVER:
        raise NotNow(f"job {job.name} is about to swap its tables", hint="Try again later.")
    if job.phase not in (Phase.READY, Phase.REVERTED):
        raise UsageError(f"job {job.name} is {job.phase}: rows are compared before the cutover")
    if job.paused:
        raise NotNow(f"job {job.name} is paused", hint=f"First: restructure resume {job.name}")
    if job.request is not None:
        raise NotNow(
            f"job {job.name} was just asked for something else: {job.request}",
            hint="Try again when that is done.",
        )


def _answered(connection: Connection, job: Job, asked: datetime) -> bool:
    found = verification.load(connection, job.id, job.names)
    return found is not None and found.ended_at is not None and found.ended_at > asked


def _report(call: Invocation, connection: Connection, job: Job) -> None:
    """Raises VerifyMismatch where rows differ."""
    found = verification.load(connection, job.id, job.names)
    assert found is not None
    if found.state == "undecided":
        raise NotNow(
            f"some rows of {job.name} could not be compared: they never came to rest",
            hint=f"restructure status {job.name} says more. Try again later.",
        )
    if not found.passed:
        raise verification.mismatch(job.name, found)
    rows = verified.rows(connection, job.id, job.names)

    def lines() -> Iterator[str]:
        yield f"{job.name}: {rows:,} rows compared, all of them equal ({_scope(found)})."

    call.output.result("verify", {"job": job.name, **_document(found, rows)}, lines)


def _scope(found: Verification) -> str:
    took = (
        words.duration((found.ended_at - found.began_at).total_seconds()) if found.ended_at else ""
    )
    return f"{'a sample, ' if found.mode == 'sample' else ''}in {took}"


def _document(found: Verification, rows: int) -> dict[str, Any]:
    return {
        "state": found.state,
        "mode": found.mode,
        "rows": rows,
        "began_at": found.began_at.isoformat(),
        "ended_at": found.ended_at.isoformat() if found.ended_at else None,
    }
