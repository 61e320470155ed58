"""The logical replication slot: found again, judged, dropped. new_slot.py makes one.

A slot has no identity but its name. What is not certainly ours (this database, pgoutput, and
where it is in use: by a session with our application_name) is never touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from psycopg import errors

from restructure.errors import NotNow, OperatorNeeded, StreamGap
from restructure.model.lsn import Lsn
from restructure.postgres.connect import APPLICATION, Connection

PLUGIN = "pgoutput"
_GONE_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """One row of pg_replication_slots.

    ``confirmed_flush`` is None while the slot is being made. ``retained_bytes``: WAL kept for
    it; ``lag_bytes``: WAL written and not confirmed; ``safe_wal_size``: bytes that may still be
    written before it is lost, None where there is no limit. ``invalidation_reason`` from
    PostgreSQL 17 on.
    """

    name: str
    plugin: str | None
    database: str | None
    here: bool
    temporary: bool
    confirmed_flush: Lsn | None
    restart: Lsn | None
    wal_status: str | None
    safe_wal_size: int | None
    invalidation_reason: str | None
    active_pid: int | None
    active_application: str | None
    retained_bytes: int
    lag_bytes: int

    @property
    def usable(self) -> bool:
        """Whether the server can still deliver from it."""
        return self.wal_status != "lost" and self.invalidation_reason is None

    @property
    def foreign(self) -> str | None:
        """Why this slot is certainly not one of ours, or None."""
        if self.plugin != PLUGIN:
            return f"uses {self.plugin or 'physical replication'}"
        if not self.here:
            return f"belongs to database {self.database}"
        return "is temporary" if self.temporary else None

    def read_by(self, job: str) -> bool:
        """Whether a session of this job is using it."""
        return (self.active_application or "").startswith(f"{APPLICATION} {job} ")


def read_slot(connection: Connection, name: str) -> SlotFacts | None:
    """Look at a slot; None if there is none."""
    row = connection.execute(
        """
        SELECT s.plugin, s.database, s.database IS NOT DISTINCT FROM current_database(),
               s.temporary, s.confirmed_flush_lsn::text, s.restart_lsn::text, s.wal_status,
               s.safe_wal_size, to_jsonb(s) ->> 'invalidation_reason', s.active_pid,
               a.application_name,
               coalesce(pg_current_wal_lsn() - s.restart_lsn, 0)::bigint,
               coalesce(pg_current_wal_lsn() - s.confirmed_flush_lsn, 0)::bigint
          FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
         WHERE s.slot_name = %s
        """,
        [name],
    ).fetchone()
    if row is None:
        return None
    plugin, database, here, temporary, confirmed, restart, *rest = row
    return SlotFacts(name, plugin, database, here, temporary, _lsn(confirmed), _lsn(restart), *rest)


def require_continuity(facts: SlotFacts | None, name: str, confirmed: Lsn) -> None:
    """Raise StreamGap unless the slot still delivers everything after ``confirmed``.

    The server may lag behind what we confirmed; it can be ahead only if somebody else moved
    the slot or made another of the same name.
    """
    hint = "Changes may have been missed: abort the job and start it again."
    if facts is None:
        raise StreamGap(f"replication slot {name} is gone", hint=hint)
    if facts.foreign:
        raise StreamGap(f"replication slot {name} {facts.foreign}", hint=hint)
    if not facts.usable:
        reason = facts.invalidation_reason or "its WAL was removed"
        raise StreamGap(f"replication slot {name} is lost: {reason}", hint=hint)
    if facts.confirmed_flush is None or facts.confirmed_flush > confirmed:
        raise StreamGap(
            f"replication slot {name} stands at {facts.confirmed_flush or 'no position'}, "
            f"beyond our {confirmed}: it was made anew or moved by somebody else",
            hint=hint,
        )


def find_slot(connection: Connection, name: str, *, job: str) -> SlotFacts | None:
    """Return the whole slot of that name, None if there is none.

    One that a crashed run of this job is still making is ended first. Raises OperatorNeeded
    where the slot is somebody else's.
    """
    facts = read_slot(connection, name)
    if facts is None:
        return None
    if facts.foreign or (facts.active_application is not None and not facts.read_by(job)):
        reason = facts.foreign or (
            f"is in use by pid {facts.active_pid} ({facts.active_application or 'no name'})"
        )
        raise OperatorNeeded(
            f"replication slot {name} {reason}: it is not ours and was not touched",
            hint="Drop it if nobody needs it, or give the job another name.",
        )
    if facts.active_pid is not None:
        end(connection, facts.active_pid)
    return settle(connection, name, job)


def drop_slot(connection: Connection, name: str, *, job: str, timeout: float = 10.0) -> None:
    """Drop the slot, whole or half-made; nothing happens where there is none of ours.

    A session that reads it is ended if it is ours. Raises NotNow naming the reader if somebody
    else's does not let go within ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        facts = read_slot(connection, name)
        if facts is None or facts.foreign:
            return
        if facts.active_pid is None:
            try:
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
            except errors.UndefinedObject:
                return
            except errors.ObjectInUse:
                continue
            return
        if facts.read_by(job):
            end(connection, facts.active_pid)
        if time.monotonic() >= deadline:
            raise NotNow(
                f"replication slot {name} is in use by pid {facts.active_pid} "
                f"({facts.active_application or 'no name'})",
                hint="End that session, then run this again.",
            )
        time.sleep(0.05)


def end_reader(connection: Connection, facts: SlotFacts, *, job: str) -> bool:
    """End the session that reads the slot if it is one of this job; say whether it was."""
    if facts.active_pid is None or not facts.read_by(job):
        return False
    end(connection, facts.active_pid)
    return True


def end(connection: Connection, pid: int) -> None:
    """Tell a session to end; it may take a moment."""
    connection.execute("SELECT pg_terminate_backend(%s)", [pid])


def settle(connection: Connection, name: str, job: str) -> SlotFacts | None:
    """Wait until a session of this job that was told to end has let go of the slot.

    A half-made slot goes with its session. Raises OperatorNeeded if that takes long.
    """
    deadline = time.monotonic() + _GONE_WITHIN
    while True:
        facts = read_slot(connection, name)
        if facts is None or facts.foreign:
            return facts
        leaving = facts.active_pid is not None and (
            facts.read_by(job) or facts.active_application is None
        )
        if not leaving and facts.confirmed_flush is not None:
            return facts
        if time.monotonic() >= deadline:
            raise OperatorNeeded(
                f"replication slot {name} is still held by our pid {facts.active_pid}, "
                "which was told to end",
                hint="It keeps WAL until that session ends.",
            )
        time.sleep(0.05)


def _lsn(text: str | None) -> Lsn | None:
    return None if text is None else Lsn.parse(text)
