"""``restructure run``: do it, from wherever the job is, as far as was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restructure.catalog import job as jobs
from restructure.cli.abort import remove
from restructure.cli.attend import attend, report
from restructure.cli.invocation import Invocation, invocation
from restructure.cli.then import Then
from restructure.errors import UsageError
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.phases.standing import has_jobs
from restructure.plan.load import LoadedPlan, load_plan

PlanArgument = Annotated[Path, typer.Argument(help="The plan file.", metavar="PLAN")]


def run(
    context: typer.Context,
    plan: PlanArgument,
    cutover: Annotated[
        bool, typer.Option("--cutover", help="Swap the tables as soon as the shadow is ready.")
    ] = False,
    then: Annotated[
        Then | None,
        typer.Option(
            help="Without --cutover: leave (the default) ends at ready; stay keeps the shadow in "
            "step until a cutover is asked for, and goes on after it. With --cutover: stay (the "
            "default) keeps the old table in step until told otherwise (revert, finalize, Ctrl-C, "
            "the plan's revert_window); leave ends at once, and the server keeps WAL until somebody "
            "attends the job again; finalize gives up the way back and drops the old table."
        ),
    ] = None,
    start_over: Annotated[
        bool,
        typer.Option(
            "--start-over",
            help="Abort the job first if it exists (not while the new table serves).",
        ),
    ] = False,
) -> None:
    """Run a plan up to ready, or with --cutover through the swap. Run it again to resume.

    Makes a publication, a slot, a shadow table in a schema of its own, and schema restructure for
    its state. The table itself and its clients are not touched before the cutover. Ctrl-C stops it
    safely.

    Undo: restructure abort JOB removes all of it, at any time before the cutover. After the cutover
    the old table is kept, in step with the new one: restructure revert JOB goes back to it.
    """
    call = invocation(context)
    if then is Then.FINALIZE and not cutover:
        raise UsageError(
            "--then finalize drops the old table after a cutover",
            hint="Add --cutover, or leave it out.",
        )
    loaded = load_plan(plan)
    wish = Wish(
        cutover=cutover,
        stay=then is Then.STAY or (cutover and then is None),
        finalize=then is Then.FINALIZE,
    )
    if _prepared(call, loaded, start_over=start_over):
        attend(call, lambda runner: runner.run(loaded, wish))
    report(call, "run", loaded.plan.name)


def _prepared(call: Invocation, loaded: LoadedPlan, *, start_over: bool) -> bool:
    """Look at what there is of the job; False where it has ended as this plan wants it.

    Also the first connection, which tells at once what is wrong with the DSN.
    """
    name = loaded.plan.name
    with call.session() as connection:
        job = jobs.find(connection, name) if has_jobs(connection) else None
        if job is None:
            return True
        if start_over and not job.ended:
            remove(call, connection, job)
            return True
        if job.phase == Phase.FINALIZED and job.digest == loaded.digest and not start_over:
            call.output.warn(
                f"Job {name} has run this plan to its end. To run it once more: --start-over"
            )
            return False
        if job.paused:
            call.output.warn(f"Job {name} is paused and will hold until: restructure resume {name}")
    return True
