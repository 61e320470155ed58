"""The command line: global options, all commands, and the exit code of whatever happens."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import traceback
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from restructure import __version__
from restructure.cli import (
    abort,
    check,
    cutover,
    demo,
    doctor,
    finalize,
    init,
    log,
    pause,
    plan,
    receipt,
    revert,
    status,
    verify,
)
from restructure.cli import (
    run as run_,
)
from restructure.cli.failure import explain
from restructure.cli.invocation import Invocation, choose_dsn, secrets_of
from restructure.cli.render import Output
from restructure.cli.signals import interrupt_on_sigterm
from restructure.errors import UsageError


class Format(StrEnum):
    """What stdout holds."""

    TEXT = "text"
    JSON = "json"


app = typer.Typer(
    name="restructure",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _command in (
    init.init,
    doctor.doctor,
    check.check,
    plan.plan,
    run_.run,
    status.status,
    pause.pause,
    pause.resume,
    verify.verify,
    cutover.cutover,
    revert.revert,
    receipt.receipt,
    abort.abort,
    finalize.finalize,
    demo.demo,
):
    app.command()(_command)


_VALUED = ("--output", "--dsn")
_ASSIGNED = tuple(f"{option}=" for option in _VALUED)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"restructure {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    dsn: Annotated[
        str | None,
        typer.Option(
            help="The database: a URL or key=value words. Else RESTRUCTURE_DSN, DATABASE_URL, or "
            "libpq's own PG* variables, service and password files. It is taken off the process "
            "list at once."
        ),
    ] = None,
    output: Annotated[
        Format, typer.Option(help="What stdout holds. With json: one document, errors included.")
    ] = Format.TEXT,
    verbose: Annotated[
        int,
        typer.Option("-v", "--verbose", count=True, help="Log more on stderr; -vv for everything."),
    ] = 0,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    """Give a live PostgreSQL table a new shape while clients keep reading and writing it.

    Usual order: init → check → plan → run → (status) → cutover → finalize. Until the cutover
    nothing changes for clients, and abort removes every trace. After it, revert goes back without
    loss, until the job is finalized.

    Interrupting any command at any moment is safe; running it again goes on.

    Exit codes: 0 done, 1 failed, 2 usage or plan error, 3 preflight refused, 4 verify mismatch, 5
    not now (safe to repeat), 6 needs an operator, 130 interrupted.
    """
    if dsn is not None and not dsn.strip():
        raise UsageError(
            "--dsn is empty",
            hint="Leave it out to use RESTRUCTURE_DSN, DATABASE_URL or libpq's own variables.",
        )
    chosen = choose_dsn(dsn)
    shown = Output(as_json=output is Format.JSON, secrets=secrets_of(chosen))
    log.configure(verbose, shown)
    context.obj = Invocation(chosen, shown)


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code, as errors.py lists them."""
    arguments = list(words)
    interrupt_on_sigterm()
    try:
        arguments = options_first(words)
        result = typer.main.get_command(app).main(
            arguments, prog_name="restructure", standalone_mode=False
        )
        sys.stdout.flush()
        return int(result or 0)
    except BrokenPipeError:
        # whoever read our output has seen enough; do not fail again while the interpreter flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        output = Output(as_json=_wants_json(arguments), secrets=secrets_of(choose_dsn(None)))
        if "-v" in arguments or "--verbose" in arguments:
            output.note("".join(traceback.format_exception(error)).rstrip())
        failure = explain(error)
        output.error(failure)
        return failure.exit_code


def options_first(words: Sequence[str]) -> list[str]:
    """Put ``--output``, ``--dsn`` and ``-v`` before the command, wherever they were written.

    Raises UsageError where one of them ends the line without its value.

    >>> options_first(["status", "orders", "--output", "json", "-v"])
    ['--output', 'json', '-v', 'status', 'orders']
    """
    front: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            rest.extend(words[index:])
            break
        if word in _VALUED:
            if index + 1 == len(words):
                raise UsageError(f"{word} needs a value", hint="restructure --help tells which.")
            front += [word, words[index + 1]]
            index += 1
        elif word.startswith(_ASSIGNED) or word in ("-v", "-vv", "--verbose"):
            front.append(word)
        else:
            rest.append(word)
        index += 1
    return front + rest


def _wants_json(arguments: Sequence[str]) -> bool:
    """For errors of the command line itself, which come before the options are parsed."""
    return "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments)
