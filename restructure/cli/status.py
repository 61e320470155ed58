"""``restructure status``: how far the jobs are, who attends them, and what they hold."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import psycopg
import typer

from restructure.catalog import job as jobs
from restructure.cli import words
from restructure.cli.invocation import Invocation, invocation
from restructure.errors import UsageError
from restructure.model.phase import ENDED, Phase, source_serves
from restructure.model.progress import Progress
from restructure.phases.standing import Standing, has_jobs, read_standing
from restructure.postgres.connect import Connection

JobArgument = Annotated[
    str, typer.Argument(help="The job's name, as in the plan (status lists them).")
]


def status(
    context: typer.Context,
    job: Annotated[
        str | None, typer.Argument(help="Only this job, with its recent history.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again until the job has ended.")
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks with --watch.", min=0.2)
    ] = 2.0,
) -> None:
    """Show how far each job is, what is pending, and what it holds on the server.

    After a cutover also whether a revert would lose anything, and until when there is a way back.
    Changes nothing. With --watch and --output json it prints one document per line.
    """
    call = invocation(context)
    seen = False
    with call.session() as connection:
        while True:
            try:
                found = _read_steady(call, connection, job)
            except UsageError:
                if not seen:
                    raise
                call.output.note(f"Job {job} is gone: it was aborted.")
                return
            seen = True
            if watch:
                call.output.clear()
            call.output.result(
                "status",
                {"jobs": [standing.as_json() for standing in found]},
                partial(_lines, found, detailed=job is not None, timed=watch),
            )
            if not watch or (job is not None and found[0].phase in ENDED):
                return
            time.sleep(interval)


def _read_steady(call: Invocation, connection: Connection, name: str | None) -> list[Standing]:
    """As :func:`_read`; once more where the last job and our schema went while we looked."""
    try:
        return _read(call, connection, name)
    except psycopg.errors.UndefinedTable:
        return _read(call, connection, name)


def _read(call: Invocation, connection: Connection, name: str | None) -> list[Standing]:
    if name is not None:
        return [read_standing(connection, call.dsn, call.job(connection, name))]
    if not has_jobs(connection):
        return []
    return [read_standing(connection, call.dsn, job) for job in jobs.all_jobs(connection)]


def _lines(found: list[Standing], *, detailed: bool, timed: bool) -> Iterator[str]:
    if timed:
        yield f"-- {words.clock()}"
    if not found:
        yield "No jobs in this database."
    for number, standing in enumerate(found):
        if number:
            yield ""
        yield from standing_lines(standing, detailed=detailed)


def standing_lines(standing: Standing, *, detailed: bool = True) -> Iterator[str]:
    """One job as text. ``detailed`` adds quarantined keys and recent history."""
    paused = " PAUSED" if standing.paused else ""
    yield f"{standing.name}  ({standing.table})  {standing.phase}{paused}"
    yield f"  phase        {words.meaning(standing.phase)}"
    if standing.phase in ENDED:
        yield f"  ended        {standing.updated_at.astimezone():%Y-%m-%d %H:%M:%S}"
    else:
        yield from _course(standing)
    yield from _trouble(standing)
    if standing.verification:
        yield from _verification(standing, standing.verification)
    if standing.receipt:
        yield f"  {standing.receipt.get('swap', 'cutover'):<11}  {words.receipt(standing.receipt)}"
    if standing.retired:
        yield f"  old table    {standing.retired}; restructure finalize {standing.name} drops it"
    if detailed:
        yield from _history(standing)


def _course(standing: Standing) -> Iterator[str]:
    progress = progress_of(standing.progress)
    if standing.attendant:
        yield f"  attended by  {standing.attendant}"
    way_back = standing.way_back
    if way_back is not None and not way_back.open:
        yield f"  way back     none: {way_back.why}"
        return
    if not standing.attendant:
        yield "  attended by  NOBODY: it stands still"
    if standing.phase in (Phase.COPY, Phase.INDEX, Phase.CUTOVER):
        yield f"  progress     {words.state_of(standing.phase, progress)}"
    yield f"  lag          {', '.join(_lag(standing))}"
    if standing.slot_retained_bytes is not None:
        yield f"  slot         retains {words.size(standing.slot_retained_bytes)} of WAL"
    if standing.attendant:
        if progress.forecast and standing.phase in (Phase.CATCHUP, Phase.READY):
            yield f"  forecast     {progress.forecast}"
        if progress.throttled:
            yield f"  throttled    {progress.throttled}"
    if standing.request:
        yield f"  asked for    {standing.request}"
    if way_back is not None and way_back.until is not None:
        yield f"  way back     revert would lose {way_back.would_lose or 'nothing'}{_known(standing)}"
        yield f"               kept open until {way_back.until.astimezone():%Y-%m-%d %H:%M}"


def _known(standing: Standing) -> str:
    """How far what is said of a revert holds; a revert itself looks at everything first."""
    if standing.way_back is None or standing.way_back.certain:
        return ""
    if standing.attendant is None:
        return ", of what was read so far: nobody reads now"
    return f", of what is applied so far: {standing.pending_keys:,} keys are not"


def _lag(standing: Standing) -> Iterator[str]:
    yield f"{standing.pending_keys:,} keys pending"
    if standing.lag_seconds is not None:
        yield words.duration(standing.lag_seconds)
    if standing.lag_bytes is not None:
        yield f"{words.size(standing.lag_bytes)} of WAL not read yet"


def progress_of(stored: dict[str, Any]) -> Progress:
    """The progress that a runner left on the job's row, empty before the first."""
    known = {field.name for field in dataclasses.fields(Progress)}
    return Progress(**{name: value for name, value in stored.items() if name in known})


def _verification(standing: Standing, found: dict[str, Any]) -> Iterator[str]:
    if found["state"] == "failed":
        least = "at least " if found["at_least"] else ""
        yield f"  DIFFERENT    the rows of {least}{found['differing']:,} keys are not what they should be"
        yield f"               restructure verify {standing.name} lists them, --repair makes them anew"
    elif found["equal_at"]:
        at = words.clock(datetime.fromisoformat(found["equal_at"]))
        of = "every row" if found["mode"] == "full" else "every row of a sample"
        yield f"  verified     {of} was equal at {at}, or was not written since it was"


def _trouble(standing: Standing) -> Iterator[str]:
    if standing.retains_for_nobody:
        undo = "or abort it" if source_serves(standing.phase) else "to its end"
        yield (
            f"  WARNING      nobody reads the slot and the server keeps its WAL "
            f"({words.size(standing.slot_retained_bytes or 0)} now): run the job again {undo}"
        )
    if standing.stream_error:
        yield f"  stream       {standing.stream_error}"
    if standing.error:
        yield f"  error        {standing.error.get('message')}"
        if standing.error.get("hint"):
            yield f"  hint         {standing.error['hint']}"
    if standing.quarantined_keys:
        live = standing.phase is Phase.LIVE
        yield (
            f"  quarantined  {standing.quarantined_keys:,} keys whose rows the"
            f" {'old' if live else 'new'} shape refuses"
        )
        yield (
            "               correct these rows in the table; until then there is no "
            + ("revert without --accept-loss" if live else "cutover")
        )


def _history(standing: Standing) -> Iterator[str]:
    for item in standing.quarantined:
        key = ", ".join("NULL" if value is None else value for value in item.key)
        yield f"    key ({key}): {item.reason} [{item.sqlstate}]"
    if standing.journal:
        yield "  recently"
    for entry in standing.journal:
        sentence = words.event(entry.event, entry.phase, entry.detail)
        yield f"    {words.clock(entry.at)}  {entry.phase:<9} {sentence}"
