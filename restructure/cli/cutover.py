"""``restructure cutover``: the swap, done here or asked of the process that attends the job."""

from __future__ import annotations

import typer

from restructure.catalog import schema
from restructure.cli.asking import aborted, ask
from restructure.cli.attend import attend, report
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.cli.then import Then, ThenOption
from restructure.errors import NotNow
from restructure.model.phase import Phase, source_serves
from restructure.model.wish import Wish


def cutover(context: typer.Context, job: JobArgument, then: ThenOption = Then.STAY) -> None:
    """Swap the new table in, as soon as the shadow is ready.

    Locks the table for some milliseconds in one transaction, as often as the plan's
    `cutover.attempts` allows, and says who stands in the way. Whatever fails rolls back, and
    clients go on with the old table.

    If a process attends the job already, it is asked to do it and this command shows how it goes;
    else this command does it. Afterwards it stays (see --then) and keeps the old table in step with
    the new one, for as long as the plan's `cutover.revert_window` says or until the job is finalized.

    Undo: restructure revert JOB.
    """
    call = invocation(context)
    wish = Wish(stay=then is Then.STAY, finalize=then is Then.FINALIZE)
    with call.session() as connection:
        found = call.job(connection, job)
        if found.phase == Phase.ABORTED:
            raise aborted(job)
        attended = schema.attendant(connection, found.id) is not None
        if source_serves(Phase(found.phase)):
            if found.paused:
                raise NotNow(f"job {job} is paused", hint=f"First: restructure resume {job}")
            if attended:
                ask(call, connection, found, "cutover", "cutover")
            else:
                wish = Wish(cutover=True, stay=wish.stay, finalize=wish.finalize)
                attend(call, lambda runner: runner.attend(job, wish))
        elif found.phase == Phase.LIVE and not attended:
            attend(call, lambda runner: runner.attend(job, wish))
    report(call, "cutover", job)
