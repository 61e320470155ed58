"""How a job stands: everything about it that an operator or a monitor may ask, read without
disturbing it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from restructure.catalog import chunks, journal, schema, verified
from restructure.catalog import job as jobs
from restructure.catalog.job import Job
from restructure.catalog.journal import Entry
from restructure.catalog.spool import Spool
from restructure.errors import OperatorNeeded, RestructureError, UsageError
from restructure.model.names import Names
from restructure.model.phase import Phase
from restructure.phases.reversible import loss
from restructure.plan.load import parse_plan
from restructure.ports import StreamLag, find_stream
from restructure.postgres.connect import Connection, describe

_SHOWN_KEYS = 20
"""Quarantined keys that are listed; their number is given in any case."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A key whose row the new shape refuses. ``key`` holds the values as text, in key order."""

    key: tuple[str | None, ...]
    sqlstate: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class WayBackStanding:
    """Of a job that is live. ``open`` until ``until``, or not because of ``why``.

    ``would_lose`` says in words what a revert would lose as far as that is known, None for nothing;
    ``certain`` whether it is known of all that was written: somebody reads it, and none of it waits.
    """

    open: bool
    until: datetime | None
    why: str | None
    would_lose: str | None
    would_lose_keys: int
    certain: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """One job as it is now.

    ``attendant`` is the session that runs it, None where nobody does. ``error`` is why the last
    runner gave up; None while one is at work. ``lag_bytes`` and ``slot_retained_bytes`` are asked
    from the server now, None where the job has no stream (any more). ``lag_seconds`` is the age of
    the oldest pending key, None where nobody can tell because nobody reads the stream.
    """

    name: str
    table: str
    phase: Phase
    attendant: str | None
    paused: bool
    request: str | None
    error: dict[str, Any] | None
    progress: dict[str, Any]
    pending_keys: int
    lag_bytes: int | None
    lag_seconds: float | None
    slot_retained_bytes: int | None
    stream_error: str | None
    quarantined_keys: int
    quarantined: tuple[Quarantined, ...]
    verification: dict[str, Any] | None
    retired: str | None
    way_back: WayBackStanding | None
    receipt: dict[str, Any] | None
    journal: tuple[Entry, ...]
    created_at: datetime
    updated_at: datetime

    @property
    def retains_for_nobody(self) -> bool:
        """Whether the server keeps WAL for a stream that nobody reads."""
        return self.attendant is None and self.slot_retained_bytes is not None

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; times in ISO 8601, sizes in bytes, durations in seconds."""
        document = dataclasses.asdict(self)
        document["phase"] = str(self.phase)
        document["attended"] = self.attendant is not None
        document["quarantined"] = [
            {"key": list(q.key), "sqlstate": q.sqlstate, "reason": q.reason, "at": q.at.isoformat()}
            for q in self.quarantined
        ]
        document["journal"] = [
            {
                "at": entry.at.isoformat(),
                "phase": entry.phase,
                "event": entry.event,
                "detail": entry.detail,
            }
            for entry in self.journal
        ]
        if self.way_back is not None and self.way_back.until is not None:
            document["way_back"]["until"] = self.way_back.until.isoformat()
        for name in ("created_at", "updated_at"):
            document[name] = document[name].isoformat()
        return document


def has_jobs(connection: Connection) -> bool:
    """Whether our state schema is here. Raises OperatorNeeded where another version made it."""
    if not schema.exists(connection):
        return False
    row = connection.execute("SELECT version FROM restructure.version").fetchone()
    if row is None or row[0] != schema.VERSION:
        raise OperatorNeeded(
            f"the jobs in this database were made by another version of this tool (state version "
            f"{row[0] if row else 'unknown'}, this one reads {schema.VERSION})",
            hint="Look at them with that version.",
        )
    return True


def find_job(connection: Connection, dsn: str, name: str) -> Job:
    """The newest job of this name. Raises UsageError where there is none."""
    job = jobs.find(connection, name) if has_jobs(connection) else None
    if job is None:
        known = [job.name for job in jobs.all_jobs(connection)] if schema.exists(connection) else []
        here = ", ".join(dict.fromkeys(known)) if known else "none"
        raise UsageError(
            f"no job named {name!r} in this database",
            hint=f"Jobs here: {here}. {describe(dsn).replace('Tried', 'Looked at')}",
        )
    return job


def read_standing(connection: Connection, dsn: str, job: Job, *, events: int = 10) -> Standing:
    """Everything that is known of ``job``. Changes nothing and takes no lock that matters."""
    phase = Phase(job.phase)
    attendant = None if job.ended else schema.attendant(connection, job.id)
    names = Names.of(job.name, job.direction)
    lag, stream_error = _lag(dsn, job, phase, names)
    spool = Spool(names, ())
    pending, age = _pending(connection, spool)
    quarantined = _quarantined(connection, spool)
    return Standing(
        name=job.name,
        table=job.source_name,
        phase=phase,
        attendant=attendant,
        paused=job.paused,
        request=job.request,
        error=job.error if attendant is None else None,
        progress={**job.progress, **_copied(connection, job)},
        pending_keys=pending,
        lag_bytes=lag.lag_bytes if lag else None,
        lag_seconds=age if age is not None or attendant is None else 0.0,
        slot_retained_bytes=lag.retained_bytes if lag else None,
        stream_error=stream_error,
        quarantined_keys=quarantined[0],
        quarantined=quarantined[1],
        verification=verified.standing(connection, job.id, job.names),
        retired=_retired(job, phase),
        way_back=_way_back(connection, job, certain=attendant is not None and not pending),
        receipt=job.receipt,
        journal=tuple(journal.recent(connection, job.id, events)),
        created_at=job.created_at,
        updated_at=job.updated_at,
    )


def _copied(connection: Connection, job: Job) -> dict[str, Any]:
    """What the catalog knows of the copy: a runner's own count begins with the runner."""
    extents = chunks.extents(connection, job.id)
    if not extents:
        return {}
    total = sum(extent.blocks for extent in extents)
    missing = sum(part.blocks for part in chunks.missing(connection, job.id))
    return {
        "rows_copied": chunks.rows_copied(connection, job.id),
        "blocks_total": total,
        "blocks_copied": total - missing,
    }


def _way_back(connection: Connection, job: Job, *, certain: bool) -> WayBackStanding | None:
    if job.phase != Phase.LIVE:
        return None
    if job.given_up is not None or job.swapped_at is None:
        return WayBackStanding(False, None, job.given_up, None, 0, True)
    window = parse_plan(job.plan, job.plan_file).plan.cutover.revert_window
    lost = loss(connection, job)
    return WayBackStanding(
        True, job.swapped_at + window, None, str(lost) if lost else None, lost.keys, certain
    )


def _lag(dsn: str, job: Job, phase: Phase, names: Names) -> tuple[StreamLag | None, str | None]:
    """What the stream's server says, or why it cannot be asked. A job in setup may have no stream
    yet.
    """
    if job.ended or phase is Phase.PLANNED or job.given_up is not None:
        return None, None
    try:
        options = parse_plan(job.plan, job.plan_file).plan.stream
        stream = find_stream(options["kind"])(dsn, names, options)
        with contextlib.closing(stream):
            lag = stream.lag()
    except RestructureError as error:
        return None, error.message
    if lag.healthy:
        return lag, None
    if phase is Phase.SETUP:
        return None, None
    return lag, lag.reason


def _pending(connection: Connection, spool: Spool) -> tuple[int, float | None]:
    """How many keys are spooled, and the age in seconds of the oldest."""
    try:
        row = connection.execute(
            sql.SQL(
                "SELECT count(*), greatest(0,"
                " extract(epoch FROM clock_timestamp() - min(committed)))::float8 FROM {}"
            ).format(spool.table)
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        return 0, None
    return (row[0], row[1] if row[0] else None) if row else (0, None)


def _quarantined(connection: Connection, spool: Spool) -> tuple[int, tuple[Quarantined, ...]]:
    try:
        count = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(spool.quarantine)
        ).fetchone()
        rows = connection.execute(
            sql.SQL(
                "SELECT to_jsonb(q) - '{{sqlstate,reason,at}}'::text[], q.sqlstate, q.reason, q.at"
                " FROM {} AS q ORDER BY q.at LIMIT %s"
            ).format(spool.quarantine),
            (_SHOWN_KEYS,),
        ).fetchall()
    except psycopg.errors.UndefinedTable:
        return 0, ()
    shown = tuple(Quarantined(_key(key), *rest) for key, *rest in rows)
    return (count[0] if count else 0), shown


def _key(columns: dict[str, Any]) -> tuple[str | None, ...]:
    ordered = sorted(columns, key=lambda name: int(name.removeprefix("k")))
    return tuple(None if columns[name] is None else str(columns[name]) for name in ordered)


def _retired(job: Job, phase: Phase) -> str | None:
    if phase is not Phase.LIVE:
        return None
    return f"{job.names.retired_schema}.{job.source_name.partition('.')[2]}"
