"""``restructure plan``: every statement that a run would execute."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from restructure.cli import words
from restructure.cli.invocation import invocation
from restructure.cli.render import finding_document, finding_lines
from restructure.cli.run import PlanArgument
from restructure.errors import Finding
from restructure.model.phase import Phase
from restructure.phases.preflight import preflight, refuse
from restructure.phases.preview import Preview, preview
from restructure.phases.preview_way_back import ReturningColumn
from restructure.plan.load import load_plan

_EFFECT = {
    "ACCESS SHARE": "as any SELECT takes it",
    "ROW SHARE": "as SELECT FOR UPDATE takes it",
    "ROW EXCLUSIVE": "as any INSERT or UPDATE takes it",
    "SHARE UPDATE EXCLUSIVE": "readers and writers go on; VACUUM and DDL wait for a moment",
}


def plan(context: typer.Context, plan: PlanArgument) -> None:
    """Show what a run would do: each statement, its lock, why; the space, a guess of the time, and
    what a revert would bring back.

    Changes nothing: what must be tried to be known is tried in a transaction that is rolled back.
    """
    call = invocation(context)
    loaded = load_plan(plan)
    with call.session() as connection:
        found = preflight(connection, call.dsn, loaded)
        refuse(found.findings)
        shown = preview(connection, loaded, found.source)
    document = {
        **shown.as_json(),
        "warnings": [finding_document(finding) for finding in found.findings],
    }
    call.output.result("plan", document, lambda: _lines(shown, found.findings))


def _lines(shown: Preview, warnings: list[Finding]) -> Iterator[str]:
    source = shown.source.relation
    size = shown.size
    low, high = size.seconds
    rows = f"about {size.rows:,} rows" if size.rows is not None else "never analyzed"
    yield f"Job {shown.names.job} on {source}"
    yield ""
    yield f"  Strongest lock on {source} before the swap: {shown.strongest_before}"
    yield f"      {_EFFECT.get(shown.strongest_before, 'clients may have to wait')}"
    yield f"      taken by: {_shortened(shown.taken_by)}"
    yield "  Locks in the swap, for some milliseconds:"
    yield from (f"      {lock}" for lock in shown.swap_locks)
    yield (
        f"  Space: about {words.size(size.needed_bytes)} more on disk until the old table is "
        "dropped, and about as much WAL"
    )
    yield (
        f"         ({rows}, table {words.size(size.table_bytes)}, "
        f"indexes {words.size(size.index_bytes)})"
    )
    yield (
        f"  Time:  {words.duration(low)} to {words.duration(high)} up to ready; a guess from the "
        "size alone (15 to 100 MB/s),"
    )
    yield "         nothing was measured here, and writers slow it down"
    if shown.carried:
        yield f"  Hangs on {source}, and comes to the new table besides owner, grants and comments:"
        yield from (f"      {thing.kind} {thing.name}: {thing.how}" for thing in shown.carried)
    yield from _way_back(shown)
    if warnings:
        yield ""
        yield from finding_lines(warnings)
    phase: Phase | None = None
    for step in shown.steps:
        if step.phase is not phase:
            phase = step.phase
            yield ""
            yield f"{phase}: {words.meaning(phase)}"
        yield ""
        yield from (f"    {line}" for line in _statement(step.text))
        yield f"      lock: {step.lock}"
        yield f"      why:  {step.why}"
    yield ""
    yield "Nothing was changed."


def _way_back(shown: Preview) -> Iterator[str]:
    back = shown.way_back
    if back.why:
        yield f"  Way back: none ({back.why})"
        return
    yield (
        f"  Way back: for {back.window} after the swap each write to the new table is made in the old "
        "one too"
    )
    for column in back.columns:
        yield f"      {column.column} {_returning(column)}"


def _returning(column: ReturningColumn) -> str:
    if column.how == "filled":
        return f"← {_shortened(column.expression or '')}"
    if column.how == "generated":
        return "computes itself again"
    kept = (
        "is NOT carried back: it has the value from before the swap"
        if column.how == "lost"
        else "keeps its value"
    )
    if column.row_refused:
        return f"{kept}; a row that is new then CANNOT go back, for it must have one"
    return f"{kept}; a row that is new then gets {_shortened(column.default or 'NULL')}"


def _statement(text: str) -> list[str]:
    lines = text.strip().splitlines()
    if not lines[0].startswith("--"):
        lines[-1] = lines[-1].rstrip(";") + ";"
    return lines


def _shortened(text: str, limit: int = 90) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 1] + "…"
