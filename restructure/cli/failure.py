"""Whatever was raised, as one of our errors: a message, a hint and an exit code."""

from __future__ import annotations

import psycopg
import typer

from restructure.engine.refusal import is_row_error, reason
from restructure.errors import Interrupted, RestructureError, Retryable, UsageError

_AGAIN = "Nothing is lost: run the same command again to go on."


def explain(error: BaseException) -> RestructureError:
    """Return what to tell the operator. Never holds a row's value."""
    if isinstance(error, Interrupted):
        return error if error.hint else Interrupted(error.message, hint=_AGAIN)
    if isinstance(error, RestructureError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", hint=_AGAIN)
    if isinstance(error, typer.Abort):
        return RestructureError("not confirmed", hint="Nothing was changed.")
    if isinstance(error, psycopg.Error):
        return _database(error)
    message = getattr(error, "format_message", None)
    if message is not None:
        return _usage(error, str(message()))
    return RestructureError(
        f"this is a defect of restructure: {type(error).__name__}: {error}",
        hint="Run it again with -v for the whole story, and please report it. " + _AGAIN,
    )


def _usage(error: BaseException, message: str) -> UsageError:
    """An error of the command line's parser. Its class is private to typer; its ``ctx`` knows the
    command.
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "restructure"
    return UsageError(message, hint=f"{command} --help tells what it takes.")


def _database(error: psycopg.Error) -> RestructureError:
    if is_row_error(error):
        return RestructureError(f"PostgreSQL refused a row: {reason(error)}")
    said = error.diag.message_primary
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return RestructureError(
            f"PostgreSQL: {said}",
            hint="restructure doctor lists what the role needs; see also the role in the DSN.",
        )
    if said is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return Retryable("the connection to the server was lost", hint=_AGAIN)
    if isinstance(error, psycopg.OperationalError):
        return Retryable(f"PostgreSQL: {said}", hint=_AGAIN)
    return RestructureError(f"PostgreSQL: {said or type(error).__name__}")
