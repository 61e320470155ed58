"""DDL of ours that PostgreSQL, or an event trigger, refuses: told in words, and never tried blindly again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from restructure.engine.refusal import ROW_ERRORS, reason
from restructure.errors import NotNow, OperatorNeeded
from restructure.postgres.said import said


@contextmanager
def told(what: str) -> Iterator[None]:
    """Within, raise NotNow or OperatorNeeded, which begins with ``what``, for what will not pass by itself.

    Errors about locks, time or the connection go on as they are.
    """
    try:
        yield
    except pg.DependentObjectsStillExist as error:
        raise NotNow(f"{what}: {said(error)}") from error
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, *ROW_ERRORS) as error:
        why = reason(error) if isinstance(error, ROW_ERRORS) else said(error)
        raise OperatorNeeded(
            f"{what}: {why}",
            hint="Something has changed since the checks, or an event trigger refuses it. Nothing "
            "has changed for clients: correct it and run the same command again.",
        ) from error
