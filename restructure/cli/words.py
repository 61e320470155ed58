"""Sentences about jobs: pure functions from values to the text that render.py prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from restructure.model.phase import Phase
from restructure.model.progress import Progress

_PHASES = {
    Phase.PLANNED: "checks passed",
    Phase.SETUP: "making publication, slot and shadow table",
    Phase.COPY: "copying rows into the shadow table",
    Phase.INDEX: "building the shadow's indexes",
    Phase.CATCHUP: "applying what changed meanwhile",
    Phase.READY: "the shadow is in step with the table",
    Phase.CUTOVER: "trying to swap the tables",
    Phase.LIVE: "the new table serves",
    Phase.REVERTED: "the old table serves again",
    Phase.FINALIZED: "the old table is dropped; the job has ended",
    Phase.ABORTED: "aborted; the job has ended",
}


def meaning(phase: str) -> str:
    """What a phase is about."""
    return _PHASES[Phase(phase)] if phase in list(Phase) else ""


def size(count: float) -> str:
    """Bytes for people.

    >>> size(20 * 1024**3)
    '20.0 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.25), duration(75), duration(7300)
    ('0.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock(moment: datetime | None = None) -> str:
    """Time of day in the local zone; now without an argument."""
    return (moment.astimezone() if moment else datetime.now()).strftime("%H:%M:%S")


def arrival(seconds: float) -> str:
    """When something ends: how long from now, and at what time."""
    at = datetime.now() + timedelta(seconds=seconds)
    return f"ETA {duration(seconds)} ({at:%H:%M:%S})"


def share(phase: str, progress: Progress) -> float | None:
    """How much of a phase is done, between 0 and 1; None where that cannot be said."""
    if phase == Phase.COPY:
        return progress.copied_share
    if phase == Phase.INDEX and progress.indexes_total:
        return progress.indexes_built / progress.indexes_total
    if phase == Phase.READY:
        return progress.verified_share
    return None


def state_of(phase: str, progress: Progress, rate: float | None = None) -> str:
    """One line on how far a running job is. ``rate`` in rows per second."""
    return " · ".join(_parts(phase, progress, rate))


def _parts(phase: str, progress: Progress, rate: float | None) -> Iterator[str]:
    if phase == Phase.COPY:
        yield f"{progress.copied_share:.1%}"
        expected = max(progress.rows_expected, progress.rows_copied)
        yield f"{progress.rows_copied:,} of about {expected:,} rows"
        if rate:
            yield f"{rate:,.0f} rows/s"
    elif phase == Phase.INDEX:
        yield f"{progress.indexes_built} of {progress.indexes_total} indexes built"
    elif phase == Phase.CUTOVER and progress.cutover_attempts:
        yield f"attempt {progress.cutover_attempts}"
        if progress.blocked_by:
            yield progress.blocked_by
    yield from _comparing(progress)
    if phase in (Phase.COPY, Phase.INDEX, Phase.CATCHUP, Phase.READY):
        yield f"{progress.pending_keys:,} keys pending"
    if phase in (Phase.CATCHUP, Phase.READY) and progress.lag_seconds is not None:
        yield f"lag {duration(progress.lag_seconds)}"
    if progress.quarantined_keys:
        yield f"{progress.quarantined_keys:,} keys QUARANTINED"
    if progress.throttled:
        yield f"throttled: {progress.throttled}"
    elif progress.forecast and (progress.pending_keys or progress.forecast.startswith("never")):
        yield progress.forecast
    elif progress.eta_seconds and phase == Phase.COPY:
        yield arrival(progress.eta_seconds)


def _comparing(progress: Progress) -> Iterator[str]:
    if progress.verified_share is None:
        return
    yield f"comparing {progress.verified_share:.1%}"
    yield f"{progress.verified_rows:,} rows compared"
    if progress.verify_eta_seconds:
        yield arrival(progress.verify_eta_seconds)


def event(name: str, phase: str, detail: dict[str, Any]) -> str:
    """One journal entry as a sentence."""
    sentence = _EVENTS.get(name)
    if sentence is not None:
        return sentence(phase, detail)
    return (
        f"{name} " + ", ".join(f"{key}: {value}" for key, value in detail.items())
        if detail
        else name
    )


def receipt(detail: dict[str, Any]) -> str:
    """What the swap cost clients."""
    attempts = detail.get("attempts", 1)
    return (
        f"swapped: lock held {detail.get('lock_held_ms')} ms, "
        f"waited {detail.get('lock_wait_ms')} ms for it, "
        f"{attempts} attempt{'s' if attempts != 1 else ''}, "
        f"{detail.get('last_keys', 0):,} last keys under the lock"
    )


_EVENTS: dict[str, Callable[[str, dict[str, Any]], str]] = {
    "entered": lambda phase, _: meaning(phase),
    "slot": lambda _, d: f"replication slot {d.get('name')} is there",
    "copied": lambda _, d: f"{d.get('rows', 0):,} rows copied",
    "copy begins again": lambda _, d: f"the copy begins again: {d.get('why')}",
    "built": lambda _, d: f"{d.get('name')} built",
    "validated": lambda _, d: f"constraint {d.get('name')} validated",
    "cutover not yet": lambda _, d: f"cutover not yet (attempt {d.get('attempt')}): {d.get('why')}",
    "revert not yet": lambda _, d: f"revert not yet (attempt {d.get('attempt')}): {d.get('why')}",
    "keeping in step": lambda _, d: (
        f"the old table is kept in step from here on; restructure revert {d.get('job')} or finalize "
        f"{d.get('job')} from another shell, Ctrl-C leaves"
    ),
    "no way back": lambda _, d: f"NO WAY BACK any more: {d.get('why')}",
    "dropping": lambda _, d: (
        f"dropping {d.get('table')} ({size(d.get('bytes', 0))}); nobody is kept waiting"
    ),
    "paused": lambda *_: "paused; restructure resume lets it go on",
    "resumed": lambda *_: "goes on",
    "terminated": lambda _, d: f"ended a session that was in the way: {d.get('who')}",
    "verifying": lambda _, d: (
        f"comparing all rows{' (a sample of them)' * (d.get('mode') == 'sample')}"
    ),
    "verified": lambda _, d: f"{d.get('rows', 0):,} rows compared, all of them equal",
    "verify failed": lambda _, d: (
        f"the rows of {'at least ' * bool(d.get('at_least'))}{d.get('keys', 0):,} keys DIFFER"
    ),
    "verification undecided": lambda _, d: f"rows could not be compared: {d.get('why')}",
    "repaired": lambda _, d: f"{d.get('keys', 0):,} keys that differed are read anew",
    "cutover refused": lambda _, d: f"no cutover: {d.get('why')}",
    "swapped": lambda _, d: receipt(d),
    "done": lambda _, d: f"done; the table that retired is kept as {d.get('retired')}",
    "warning": lambda _, d: " → ".join(
        word for word in (f"warning: {d.get('message')}", d.get("hint")) if word
    ),
    "connection lost, trying again": lambda _, d: (
        f"connection lost, trying again ({d.get('error')})"
    ),
}
