"""Did the swap commit? Asked when the answer to its COMMIT was lost."""

from __future__ import annotations

import time

import psycopg

from restructure.catalog import job as jobs
from restructure.engine.work import Work
from restructure.errors import Retryable, UnknownOutcome
from restructure.model.phase import Phase
from restructure.postgres.connect import Connection

_PATIENCE = 60.0
"""Seconds to wait for a server that does not answer, or a commit that waits for a standby."""


def committed(work: Work, xid: int) -> bool:
    """Learn the fate of the transaction ``xid`` (64 bit) from the server.

    pg_xact_status knows recent transactions (PostgreSQL docs, functions-info); one that is
    still committing, perhaps because it waits for a synchronous standby, is "in progress".
    Raises UnknownOutcome where no answer is had.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            with work.connect("outcome") as session:
                while time.monotonic() < deadline:
                    row = session.execute(
                        "SELECT pg_xact_status(%s::text::xid8)", (xid,)
                    ).fetchone()
                    if row and row[0] != "in progress":
                        return (
                            _swapped(session, work.job.id)
                            if row[0] is None
                            else bool(row[0] == "committed")
                        )
                    time.sleep(0.05)
        except (Retryable, psycopg.OperationalError):
            time.sleep(0.5)
    raise UnknownOutcome(
        "the swap was sent and the server has not told whether it committed",
        hint="Look at the server (is a synchronous standby missing?), then run the same command "
        "again: it reads the outcome from the job's row.",
    )


def _swapped(session: Connection, job: int) -> bool:
    """The server has forgotten a transaction so old; the job's row, written in it, has not."""
    return jobs.reload(session, job).phase == Phase.LIVE
