"""What PostgreSQL says of an error in DDL, where no row has a part in it."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from restructure.postgres.connect import Connection

_PASSING = ("08", "40", "57")
"""Connection lost, deadlock or serialization failure, cancelled or shut down (errcodes-appendix)."""


def said(error: psycopg.Error) -> str:
    """Its message and detail in one line. Either may quote a value of a row in other statements."""
    parts = (error.diag.message_primary, error.diag.message_detail)
    return "; ".join(" ".join(part.split()) for part in parts if part) or str(error)


def passing(error: psycopg.Error) -> bool:
    """Whether it is a trouble of the moment, which says nothing about what was asked for."""
    return (
        error.sqlstate is None
        or error.sqlstate.startswith(_PASSING)
        or isinstance(error, psycopg.errors.LockNotAvailable)
    )


def refusal(connection: Connection, work: Callable[[], None], *, keep: bool = True) -> str | None:
    """Do ``work`` in a transaction or savepoint; PostgreSQL's reason where it refuses, else None.

    What is ``passing`` is raised. Without ``keep`` nothing of it remains in any case.
    """
    try:
        with connection.transaction(force_rollback=not keep):
            work()
    except psycopg.DatabaseError as error:
        if passing(error):
            raise
        return said(error)
    return None
