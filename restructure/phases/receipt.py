"""The receipt of a swap: what it took and what it carried, kept with the job for good."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event
from typing import Any

from psycopg.types.json import Jsonb

from restructure import __version__
from restructure.catalog import job as jobs
from restructure.catalog import journal, verified
from restructure.engine.work import Work
from restructure.postgres.connect import Connection
from restructure.shape.carry.inventory import Inventory

_SAMPLE_EVERY = 0.005
"""Seconds between two looks at who waits."""


@dataclass(slots=True)
class Queue:
    """Who waited behind the lock: the most sessions at once, and the longest wait in seconds."""

    sessions: int = 0
    longest: float = 0.0
    over: Event = field(default_factory=Event)

    def watch(self, connection: Connection, tables: list[int]) -> None:
        """Look again and again until ``over``: to be run beside the swap's statements."""
        while True:
            row = connection.execute(_WAITING, [tables], prepare=True).fetchone()
            assert row is not None
            self.sessions = max(self.sessions, row[0])
            self.longest = max(self.longest, row[1])
            if self.over.wait(_SAMPLE_EVERY):
                return


@dataclass(slots=True)
class Receipt:
    """One swap. ``document`` holds plain JSON values: counts, bytes, ISO times, milliseconds in ``_ms``."""

    document: dict[str, Any]

    @classmethod
    def begin(cls, work: Work, word: str, attempt: int, inventory: Inventory) -> Receipt:
        """What is known before the lock."""
        return cls(
            {
                "job": work.job.name,
                "table": work.job.source_name,
                "swap": word,
                "version": __version__,
                "server_version": work.state.info.server_version,
                "attempts": attempt,
                "phases": _durations(work.state, work.job.id),
                "verification": _verification(work),
                "carried": [str(thing) for thing in sorted(inventory)],
            }
        )

    def store(
        self,
        connection: Connection,
        job: int,
        *,
        held: float,
        waited: float,
        keys: int,
        queue: Queue,
    ) -> None:
        """Insert it in the swap's transaction. ``held`` and ``waited`` in seconds."""
        self.document |= {
            "lock_held_ms": _milliseconds(held),
            "lock_wait_ms": _milliseconds(waited),
            "last_keys": keys,
            "queue": {
                "sessions": queue.sessions,
                "longest_wait_ms": _milliseconds(queue.longest),
            },
        }
        row = connection.execute(
            "INSERT INTO restructure.receipt (job, document) VALUES (%s, %s || jsonb_build_object("
            " 'at', clock_timestamp())) RETURNING id",
            (job, Jsonb(self.document)),
        ).fetchone()
        assert row is not None
        self.document["id"] = row[0]

    def finish(self, connection: Connection, job: int, held: float) -> dict[str, Any]:
        """After the commit: how long the lock was held in all. Returns the part that status shows."""
        self.document["lock_held_ms"] = _milliseconds(held)
        connection.execute(
            "UPDATE restructure.receipt SET document = document || %s WHERE id = %s",
            (Jsonb({"lock_held_ms": _milliseconds(held)}), self.document["id"]),
        )
        short = {name: self.document[name] for name in _SHORT}
        jobs.store(connection, job, receipt=short)
        return short


_SHORT = ("swap", "lock_held_ms", "lock_wait_ms", "attempts", "last_keys", "queue")


def receipts(connection: Connection, job: int) -> list[dict[str, Any]]:
    """All of a job's, the oldest first."""
    rows = connection.execute(
        "SELECT document FROM restructure.receipt WHERE job = %s ORDER BY id", (job,)
    ).fetchall()
    return [document for (document,) in rows]


def _verification(work: Work) -> dict[str, Any] | None:
    """None where no range is known: a swap forgets what was compared before it."""
    found = verified.receipt(work.state, work.job.id, work.names)
    return found if found is not None and found["ranges"] else None


def _durations(connection: Connection, job: int) -> list[dict[str, Any]]:
    """Each phase the job has been in, in order, with seconds; the last one until now."""
    entries = [
        entry for entry in journal.recent(connection, job, 10_000) if entry.event == "entered"
    ]
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moments = [*((entry.phase, entry.at) for entry in entries), ("", row[0])]
    return [
        {"phase": phase, "began": began.isoformat(), "seconds": (end - began).total_seconds()}
        for (phase, began), (_, end) in pairwise(moments)
    ]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)


_WAITING = """
SELECT count(DISTINCT pid),
       coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
FROM pg_catalog.pg_locks WHERE NOT granted AND relation = ANY(%s::oid[])
"""
