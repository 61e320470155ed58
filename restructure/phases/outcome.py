"""Did the swap commit? Asked when the answer to its COMMIT was lost."""

from __future__ import annotations

import time

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog.job import Job
from restructure.errors import Retryable, UnknownOutcome
from restructure.model.phase import Phase
from restructure.postgres.connect import Connection, connect

_PATIENCE = 60.0
"""Seconds to wait for a server that does not answer, or a commit that waits for a standby."""


def committed(dsn: str, job: Job, xid: int, done: Phase) -> bool:
    """Learn the fate of the transaction ``xid`` (64 bit), which leads to ``done``, from the server.

    pg_xact_status knows recent transactions (PostgreSQL docs, functions-info); one that is
    still committing, perhaps because it waits for a synchronous standby, is "in progress".
    Raises UnknownOutcome where no answer is had.
    """
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            with connect(dsn, job=job.name, role="outcome") as session:
                while time.monotonic() < deadline:
                    status = _status(session, xid)
                    if status is None:
                        # forgotten by the server; the job's row, written in it, has not
                        return jobs.reload(session, job.id).phase == done
                    if status != "in progress":
                        return status == "committed"
                    time.sleep(0.05)
        except (Retryable, psycopg.OperationalError):
            time.sleep(0.5)
    raise UnknownOutcome(
        "the swap was sent and the server has not told whether it committed",
        hint="Look at the server (is a synchronous standby missing?), then run the same command "
        "again: it reads the outcome from the job's row.",
    )


def settle(dsn: str, state: Connection, job: Job) -> Job:
    """Wait until the server knows the fate of the last swap that was tried; the job as it is then."""
    if job.swap_xid is None or _status(state, job.swap_xid) != "in progress":
        return job
    committed(dsn, job, job.swap_xid, Phase.LIVE)
    return jobs.reload(state, job.id)


def _status(session: Connection, xid: int) -> str | None:
    row = session.execute("SELECT pg_xact_status(%s::text::xid8)", (xid,)).fetchone()
    return row[0] if row else None
