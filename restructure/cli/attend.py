"""Attending a job from a command: progress, signals, and the report at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from restructure.cli import words
from restructure.cli.invocation import Invocation
from restructure.cli.progress import JobView
from restructure.cli.signals import stopping
from restructure.cli.status import standing_lines
from restructure.errors import RestructureError
from restructure.model.phase import Phase, source_serves
from restructure.phases.standing import Standing, read_standing
from restructure.runner import Runner

T = TypeVar("T")


def attend(call: Invocation, work: Callable[[Runner], T]) -> T:
    """Do ``work`` with a runner that shows what it does and stops at the first signal."""
    with JobView(call.output) as view:
        runner = Runner(call.dsn, view.event, view.progress)

        def stop(reason: str) -> None:
            call.output.warn(f"{reason}: finishing what is under way; Ctrl-C again leaves at once")
            runner.stop(reason)

        with stopping(stop):
            return work(runner)


def report(call: Invocation, command: str, name: str) -> None:
    """Say where the job is now, and what to type next."""
    with call.session() as connection:
        standing = read_standing(connection, call.dsn, call.job(connection, name), events=0)

    def lines() -> Iterator[str]:
        yield from standing_lines(standing, detailed=False)
        yield from _next(standing)

    if standing.retains_for_nobody:
        table, end = (
            ("shadow", "aborted") if source_serves(standing.phase) else ("old table", "finalized")
        )
        call.output.warn(
            f"Nobody attends job {name} now. The {table} falls behind, and the server keeps all WAL "
            f"for the slot ({words.size(standing.slot_retained_bytes or 0)} now) until the job "
            f"goes on or is {end}."
        )
    call.output.result(command, {"job": standing.as_json()}, lines)


def recorded_failure(recorded: dict[str, str | None]) -> RestructureError:
    """An error that another process left on the job's row, with the exit code of its class."""
    failure = RestructureError(recorded.get("message") or "it failed", hint=recorded.get("hint"))
    classes = {each.__name__: each for each in _descendants(RestructureError)}
    found = classes.get(recorded.get("kind") or "")
    if found is not None:
        failure.exit_code = found.exit_code
    return failure


def _descendants(root: type[RestructureError]) -> Iterator[type[RestructureError]]:
    for child in root.__subclasses__():
        yield child
        yield from _descendants(child)


def _next(standing: Standing) -> Iterator[str]:
    name = standing.name
    if standing.phase is Phase.LIVE:
        if standing.way_back is not None and standing.way_back.open:
            yield f"  next         restructure revert {name}"
            yield "                   go back to the old table with all that was written since"
            yield f"               restructure finalize {name}"
        else:
            yield f"  next         restructure finalize {name}"
        yield "                   when nobody needs the old table any more; there is no undo"
    elif source_serves(standing.phase) and standing.attendant is None:
        yield f"  next         restructure cutover {name}"
        yield "                   swap the tables"
        yield "               restructure run PLAN --then stay"
        yield "                   keep the shadow in step until somebody asks for the cutover"
        yield f"               restructure abort {name}"
        yield "                   remove everything the job made"
