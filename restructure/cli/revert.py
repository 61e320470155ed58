"""``restructure revert``: the old table takes its place again, with all that was written since."""

from __future__ import annotations

from typing import Annotated

import typer

from restructure.catalog import schema
from restructure.cli.asking import ask
from restructure.cli.attend import attend, report
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.cli.then import Then, ThenAfterRevertOption
from restructure.engine.work import REVERT, REVERT_WITH_LOSS
from restructure.errors import NotNow, OperatorNeeded, UsageError
from restructure.model.phase import Phase
from restructure.model.wish import Wish


def revert(
    context: typer.Context,
    job: JobArgument,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go back although something is lost by it, for good: rows that the old shape cannot "
            "hold are in neither table then.",
        ),
    ] = False,
    then: ThenAfterRevertOption = Then.STAY,
) -> None:
    """Go back: swap the old table in again, with everything that was written since the cutover.

    A cutover in the other direction: the same short lock, tries and checks, and whatever fails
    rolls back. Refuses (exit 6) where something would be lost; status says at any time whether that
    is so, and of which keys. Afterwards the job can cut over again, or be aborted.

    Undo: restructure cutover JOB.
    """
    if then is Then.FINALIZE:
        raise UsageError(
            "after a revert there is nothing to finalize",
            hint=f"restructure abort {job} removes the new table and everything else of the job.",
        )
    call = invocation(context)
    with call.session() as connection:
        found = call.job(connection, job)
        if found.phase == Phase.LIVE:
            if found.given_up is not None:
                raise OperatorNeeded(
                    f"there is no way back: {found.given_up}",
                    hint=f"restructure finalize {job} drops the old table.",
                )
            if found.paused:
                raise NotNow(f"job {job} is paused", hint=f"First: restructure resume {job}")
            if schema.attendant(connection, found.id) is not None:
                ask(
                    call,
                    connection,
                    found,
                    REVERT_WITH_LOSS if accept_loss else REVERT,
                    "revert",
                )
            else:
                wish = Wish(revert=True, accept_loss=accept_loss, stay=then is Then.STAY)
                attend(call, lambda runner: runner.attend(job, wish))
        elif found.phase != Phase.REVERTED:
            raise UsageError(
                f"job {job} is {found.phase}: there is nothing to revert",
                hint=f"restructure status {job} shows how far it is.",
            )
        elif schema.attendant(connection, found.id) is None and (
            found.aftermath or then is Then.STAY
        ):
            attend(call, lambda runner: runner.attend(job, Wish(stay=then is Then.STAY)))
    report(call, "revert", job)
