"""Which database errors speak of a row, and how to name them without showing the row."""

from __future__ import annotations

import psycopg
from psycopg import errors as pg

ROW_ERRORS = (pg.DataError, pg.IntegrityError)
"""Classes 22 and 23: a cast, a NOT NULL, CHECK, UNIQUE or EXCLUDE, a missing partition."""


def is_row_error(error: psycopg.Error) -> bool:
    """Whether the new shape refuses a row, as opposed to the server failing us.

    PostgreSQL raises P0001 for RAISE in a function that an expression calls.
    """
    return isinstance(error, (*ROW_ERRORS, pg.RaiseException))


def reason(error: psycopg.Error) -> str:
    """The error without a value: its name, and the constraint or column it is about.

    The server's own message may quote the value, so it is never kept.
    """
    diag = error.diag
    about = diag.constraint_name or diag.column_name or diag.datatype_name
    name = type(error).__name__
    return f"{name} ({about})" if about else name
