"""``restructure check``: every reason why a plan cannot run, at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from restructure.cli.data_view import DataView
from restructure.cli.invocation import Invocation, invocation
from restructure.cli.render import finding_document, finding_lines
from restructure.cli.run import PlanArgument
from restructure.cli.signals import stopping
from restructure.cli.words import duration
from restructure.errors import PreflightRefused, UsageError
from restructure.phases.data_check import DataCheck, DataChecker
from restructure.phases.preflight import Preflight, preflight
from restructure.plan.load import LoadedPlan, load_plan


def check(
    context: typer.Context,
    plan: PlanArgument,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Also compute every new row, without writing, and count those that the new table "
            "would refuse. Reads the whole table, throttled as the copy is.",
        ),
    ] = False,
) -> None:
    """Check a plan against the live database: every finding at once, each with its remedy.

    Changes nothing: the shadow table is built in a transaction that is rolled back. Exit code 3
    means that something refuses the job (with --data: a row too), 2 that the plan itself is wrong
    (with file, line and column).
    """
    call = invocation(context)
    loaded = load_plan(plan)
    with call.session() as connection:
        found = preflight(connection, call.dsn, loaded)
    findings = list(found.findings)
    looked = None
    if data and not any(finding.refuses for finding in findings):
        looked = _look(call, loaded, found)
        findings += looked.findings
    refused = any(finding.refuses for finding in findings)

    def lines() -> Iterator[str]:
        yield from finding_lines(findings)
        if looked is not None:
            took = duration(looked.seconds)
            yield f"{loaded.plan.name}: {looked.rows:,} rows were looked at in {took}."
        if refused:
            yield f"{loaded.plan.name}: cannot run yet. Nothing was changed."
        else:
            table = found.source.relation
            yield f"{loaded.plan.name}: {table} can be restructured. Nothing was changed."
            yield f"Next: restructure plan {plan}   or   restructure run {plan}"

    call.output.result(
        "check",
        {
            "job": loaded.plan.name,
            "table": str(found.source.relation),
            "ok": not refused,
            "findings": [finding_document(finding) for finding in findings],
            "data": looked.as_json() if looked is not None else None,
        },
        lines,
    )
    if refused:
        raise typer.Exit(PreflightRefused.exit_code)


def _look(call: Invocation, loaded: LoadedPlan, found: Preflight) -> DataCheck:
    if found.shadow is None:
        raise UsageError(
            f"job {loaded.plan.name} is under way: its own copy finds the rows that are refused",
            hint=f"restructure status {loaded.plan.name} counts them.",
        )
    with DataView(call.output) as view:
        checker = DataChecker(call.dsn, loaded, found.source, view.show)
        with stopping(checker.stop):
            return checker.run()
