"""Whatever was raised, as one of our errors: a message, a hint and an exit code."""

from __future__ import annotations

import psycopg
import typer

from restructure.engine.refusal import is_row_error, reason
from restructure.errors import Interrupted, RestructureError, Retryable, UsageError

_AGAIN = "Nothing is lost: run the same command again to go on."


def explain(error: BaseException) -> RestructureError:
    """Return what to tell the operator. Never holds a row's value."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", hint=_AGAIN)
    if isinstance(error, Interrupted) and not error.hint:
        return Interrupted(error.message, hint=_AGAIN)
    if isinstance(error, RestructureError):
        return error
    if isinstance(error, psycopg.Error):
        return _database(error)
    return _of_the_command_line(error) or RestructureError(
        f"this is a defect of restructure: {type(error).__name__}: {error}",
        hint="Run it again with -v for the whole story, and please report it. " + _AGAIN,
    )


def _of_the_command_line(error: BaseException) -> RestructureError | None:
    """What typer raises. The classes of its parser are private; ``ctx`` knows the command."""
    if isinstance(error, typer.Abort):
        return RestructureError("not confirmed", hint="Nothing was changed.")
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "restructure"
    return UsageError(str(message()), hint=f"{command} --help tells what it takes.")


def _database(error: psycopg.Error) -> RestructureError:
    if is_row_error(error):
        return RestructureError(f"PostgreSQL refused a row: {reason(error)}")
    said = error.diag.message_primary
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return RestructureError(
            f"PostgreSQL: {said}",
            hint="restructure doctor lists what the role needs.",
        )
    if said is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Retryable("the connection to the server was lost", hint=_AGAIN)
    if isinstance(error, psycopg.OperationalError):
        return Retryable(f"PostgreSQL: {said}", hint=_AGAIN)
    return RestructureError(f"PostgreSQL: {said or type(error).__name__}")
