"""``restructure check``: every reason why a plan cannot run, at once."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from restructure.cli.invocation import invocation
from restructure.cli.render import finding_document, finding_lines
from restructure.cli.run import PlanArgument
from restructure.errors import PreflightRefused
from restructure.phases.preflight import preflight
from restructure.plan.load import load_plan


def check(context: typer.Context, plan: PlanArgument) -> None:
    """Check a plan against the live database: every finding at once, each with its remedy.

    Changes nothing: the shadow table is built in a transaction that is rolled back. Exit code 3
    means that something refuses the job, 2 that the plan itself is wrong (with file, line and
    column).
    """
    call = invocation(context)
    loaded = load_plan(plan)
    with call.session() as connection:
        found = preflight(connection, call.dsn, loaded)
    refused = any(finding.refuses for finding in found.findings)

    def lines() -> Iterator[str]:
        yield from finding_lines(found.findings)
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
            "findings": [finding_document(finding) for finding in found.findings],
        },
        lines,
    )
    if refused:
        raise typer.Exit(PreflightRefused.exit_code)
