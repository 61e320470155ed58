"""``restructure finalize``: drop the old table."""

from __future__ import annotations

from typing import Annotated

import typer

from restructure.cli.attend import attend, report
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.errors import UsageError
from restructure.model.phase import Phase
from restructure.runner import Wish


def finalize(
    context: typer.Context,
    job: JobArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop the old table after a cutover. Asks first.

    Drops the schema of the retired table with all that is in it. The new table is not touched.
    There is no undo: take a backup of the old table first if you may need it.
    """
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
    if found.phase != Phase.FINALIZED:
        if found.phase != Phase.LIVE:
            raise UsageError(
                f"job {job} is {found.phase}: there is no old table yet",
                hint=f"First: restructure cutover {job}",
            )
        call.confirm(
            f"Drop schema {found.names.retired_schema} with the old {found.source_name}? "
            "There is no undo.",
            yes=yes,
        )
        attend(call, lambda runner: runner.attend(job, Wish(finalize=True)))
    report(call, "finalize", job)
