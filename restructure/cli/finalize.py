"""``restructure finalize``: drop the old table."""

from __future__ import annotations

from typing import Annotated

import typer

from restructure.catalog import schema
from restructure.cli.asking import ask
from restructure.cli.attend import attend, report
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.engine.work import FINALIZE
from restructure.errors import UsageError
from restructure.model.phase import Phase
from restructure.model.wish import Wish


def finalize(
    context: typer.Context,
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give up the way back and drop the old table. Asks first.

    Removes the reverse slot and publication, then the schemas with the old table and what retired
    with it, one thing after the other: no lock is held for long, and none on the new table. What
    somebody else has built on the old table is named, and not dropped.
    There is no undo: take a backup of the old table first if you may need it.
    """
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
        if found.phase != Phase.FINALIZED:
            if found.phase != Phase.LIVE:
                raise UsageError(
                    f"job {job} is {found.phase}: there is no old table to drop",
                    hint=f"First: restructure cutover {job}",
                )
            call.confirm(
                f"Drop schema {found.names.retired_schema} with the old {found.source_name}? "
                "There is no undo.",
                yes=yes,
            )
            if schema.attendant(connection, found.id) is not None:
                ask(call, connection, found, FINALIZE, "end")
            else:
                attend(call, lambda runner: runner.attend(job, Wish(finalize=True)))
    report(call, "finalize", job)
