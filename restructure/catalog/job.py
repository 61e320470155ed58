"""The row of a job: who may write it, and how its phase advances."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from restructure.errors import OperatorNeeded, UsageError
from restructure.model.names import Direction, Names
from restructure.model.phase import ENDED, TRANSITIONS, Phase, direction
from restructure.postgres.connect import Connection

_COLUMNS = """id, name, phase, token, plan, plan_file, digest, source, source_name, paused, request, error,
              shadow, reverse, fingerprint, copy_snapshot::text, indexes_built,
              bulk_xid::text::bigint AS bulk_xid, swap_xid::text::bigint AS swap_xid, swapped_at, aftermath,
              given_up, progress, receipt, created_at, updated_at"""


@dataclass(frozen=True, slots=True)
class Job:
    """One row of restructure.job as it was when read."""

    id: int
    name: str
    phase: str
    token: int
    plan: str
    plan_file: str
    digest: str
    source: int
    source_name: str
    paused: bool
    request: str | None
    error: dict[str, Any] | None
    shadow: dict[str, Any] | None
    reverse: dict[str, Any] | None
    fingerprint: dict[str, Any] | None
    copy_snapshot: str | None
    indexes_built: int
    bulk_xid: int | None
    swap_xid: int | None
    swapped_at: datetime | None
    aftermath: bool
    given_up: str | None
    progress: dict[str, Any]
    receipt: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime

    @property
    def names(self) -> Names:
        return Names.of(self.name)

    @property
    def direction(self) -> Direction:
        return direction(Phase(self.phase))

    @property
    def ended(self) -> bool:
        return Phase(self.phase) in ENDED


class LostToken(OperatorNeeded):
    """Another runner has taken this job over; this one writes no more."""


def create(
    connection: Connection,
    *,
    name: str,
    plan: str,
    plan_file: str,
    digest: str,
    source: int,
    source_name: str,
) -> Job:
    """Insert a job in phase ``planned``. The name is free again once a job has ended."""
    connection.execute(
        """INSERT INTO restructure.job (name, plan, plan_file, digest, source, source_name)
           VALUES (%s, %s, %s, %s, %s, %s)
           ON CONFLICT DO NOTHING""",
        (name, plan, plan_file, digest, source, source_name),
    )
    return load(connection, name)


def find(connection: Connection, name: str) -> Job | None:
    """The newest job of this name, running or ended."""
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM restructure.job WHERE name = %s ORDER BY id DESC LIMIT 1",
            (name,),
        ).fetchone()


def load(connection: Connection, name: str) -> Job:
    """As :func:`find`, raising UsageError where there is none."""
    job = find(connection, name)
    if job is None:
        raise UsageError(f"no job named {name!r}", hint="`restructure status` lists the jobs.")
    return job


def reload(connection: Connection, job: int) -> Job:
    """Read a job's row again by id."""
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        row = cursor.execute(
            f"SELECT {_COLUMNS} FROM restructure.job WHERE id = %s", (job,)
        ).fetchone()
    if row is None:
        raise LostToken(
            "the job's row is gone", hint="Somebody aborted the job from another session."
        )
    return row


def all_jobs(connection: Connection) -> list[Job]:
    """Every job, newest first."""
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(f"SELECT {_COLUMNS} FROM restructure.job ORDER BY id DESC").fetchall()


def take_over(connection: Connection, job: int) -> int:
    """Raise the token so that an earlier runner can write no more; return ours."""
    row = connection.execute(
        "UPDATE restructure.job SET token = token + 1, updated_at = now() WHERE id = %s RETURNING token",
        (job,),
    ).fetchone()
    if row is None:
        raise LostToken(
            "the job's row is gone", hint="Somebody aborted the job from another session."
        )
    return int(row[0])


def advance(connection: Connection, job: int, token: int, old: Phase, new: Phase) -> None:
    """Compare-and-set the phase, in the caller's transaction.

    Raises LostToken where the row is not as this runner left it.
    """
    if new not in TRANSITIONS[old]:
        raise AssertionError(f"no transition from {old} to {new}")
    cursor = connection.execute(
        """UPDATE restructure.job SET phase = %s, error = NULL, updated_at = now()
           WHERE id = %s AND token = %s AND phase = %s""",
        (new, job, token, old),
    )
    if cursor.rowcount != 1:
        raise LostToken(
            f"the job is no longer in phase {old} under this runner",
            hint="Another runner has taken it over; look at `restructure status`.",
        )
    connection.execute(
        "INSERT INTO restructure.journal (job, phase, event) VALUES (%s, %s, 'entered')", (job, new)
    )


_JSON = frozenset({"shadow", "reverse", "fingerprint", "progress", "error", "receipt"})
_STORED = _JSON | {
    "copy_snapshot",
    "indexes_built",
    "bulk_xid",
    "swap_xid",
    "swapped_at",
    "aftermath",
    "given_up",
    "paused",
    "request",
    "plan",
    "plan_file",
}


def store(connection: Connection, job: int, **values: Any) -> None:
    """Set columns of the job's row, in the caller's transaction. None stores NULL."""
    unknown = values.keys() - _STORED
    if unknown:
        raise AssertionError(f"not a column to store: {unknown}")
    adapted = {
        name: Jsonb(value) if name in _JSON and value is not None else value
        for name, value in values.items()
    }
    casts = {"copy_snapshot": "pg_snapshot", "bulk_xid": "xid8", "swap_xid": "xid8"}
    assignments = sql.SQL(", ").join(
        sql.SQL("{} = {}::text::{}").format(
            sql.Identifier(name), sql.Placeholder(name), sql.SQL(casts[name])
        )
        if name in casts
        else sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in values
    )
    connection.execute(
        sql.SQL("UPDATE restructure.job SET {}, updated_at = now() WHERE id = %(id)s").format(
            assignments
        ),
        {**adapted, "id": job},
    )
