"""What happened to a job, in order: for people, receipts and the next runner."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from psycopg.types.json import Jsonb

from restructure.postgres.connect import Connection


class Entry(NamedTuple):
    at: datetime
    phase: str
    event: str
    detail: dict[str, Any]


def write(connection: Connection, job: int, phase: str, event: str, detail: dict[str, Any]) -> None:
    """Append one event. ``detail`` holds counts, names and durations, never row values."""
    connection.execute(
        "INSERT INTO restructure.journal (job, phase, event, detail) VALUES (%s, %s, %s, %s)",
        (job, phase, event, Jsonb(detail)),
    )


def recent(connection: Connection, job: int, limit: int = 20) -> list[Entry]:
    """The newest events, oldest first."""
    rows = connection.execute(
        """SELECT at, phase, event, detail FROM restructure.journal
           WHERE job = %s ORDER BY id DESC LIMIT %s""",
        (job, limit),
    ).fetchall()
    return [Entry(*row) for row in reversed(rows)]
