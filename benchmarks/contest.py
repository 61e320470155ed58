"""One contender beside working clients: how long it took, and what they waited."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg

from benchmarks import orders
from benchmarks.clients import Clients, work_for
from benchmarks.place import Place, environment
from benchmarks.tool import History, Tool, read_history

T = TypeVar("T")

_WARM_UP = 3.0
_BASELINE = 6.0
_AFTERWARDS = 2.0


@dataclass(slots=True)
class Round:
    """``total`` in seconds; waits in milliseconds. ``longest_wait`` is over the blocking moment."""

    total: float
    baseline_median: float
    longest_wait: float
    copy_median: float | None = None
    lock_held: float | None = None
    peak_megabytes: float = 0.0
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "total_s": round(self.total, 3),
            "baseline_median_ms": self.baseline_median,
            "copy_median_ms": self.copy_median,
            "longest_wait_ms": self.longest_wait,
            "lock_held_ms": self.lock_held,
            "resident_mb": self.peak_megabytes,
            **self.detail,
        }


def ours(place: Place, *, rate: int, waits: bool = False) -> Round:
    """The tool, through its cutover. The moment looked at is the whole phase of that name."""

    def act(dsn: str) -> tuple[History, Tool]:
        with Tool(dsn, "--cutover", "--then", "leave", waits=waits) as tool:
            tool.finish()
        return read_history(dsn), tool

    clients, baseline, (history, tool) = _beside_clients(place, "load_ours", rate, act)
    copying = history.entered["copy"], history.copied
    cutting = history.entered["cutover"], history.swapped
    return Round(
        history.setup_to_swap,
        clients.typical(*baseline),
        clients.longest(*cutting),
        clients.typical(*copying),
        float(history.receipt["lock_held_ms"]),
        tool.peak_megabytes,
        {
            **history.as_json(),
            "baseline": clients.summary(*baseline),
            "copy": clients.summary(*copying),
            "index": clients.summary(history.entered["index"], history.entered["catchup"]),
            "cutover": clients.summary(*cutting),
            "failed": clients.failed,
            "waits": tool.waits,
        },
    )


def alter(place: Place, *, rate: int) -> Round:
    """The blocking ALTER TABLE: its lock is held as long as it runs."""

    def act(dsn: str) -> tuple[float, float]:
        with psycopg.connect(dsn, autocommit=True) as session:
            began = time.time()
            session.execute(orders.BLOCKING_ALTER)
            return began, time.time()

    return _plain(place, "load_alter", rate, act)


def repack(place: Place, *, rate: int) -> Round:
    """pg_repack, which rewrites the same table and its indexes but changes no type."""

    def act(dsn: str) -> tuple[float, float]:
        began = time.time()
        subprocess.run(
            [place.program("pg_repack"), "-t", orders.TABLE],
            env=environment(dsn),
            capture_output=True,
            check=True,
        )
        return began, time.time()

    def with_extension(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("CREATE EXTENSION pg_repack")

    return _plain(place, "load_repack", rate, act, with_extension)


def _plain(
    place: Place,
    name: str,
    rate: int,
    act: Callable[[str], tuple[float, float]],
    before: Callable[[str], None] = lambda _: None,
) -> Round:
    clients, baseline, (began, ended) = _beside_clients(place, name, rate, act, before)
    return Round(
        ended - began,
        clients.typical(*baseline),
        clients.longest(began, ended),
        detail={"baseline": clients.summary(*baseline), "failed": clients.failed},
    )


def _beside_clients(
    place: Place,
    name: str,
    rate: int,
    act: Callable[[str], T],
    before: Callable[[str], None] = lambda _: None,
) -> tuple[Clients, tuple[float, float], T]:
    with place.copy(name) as dsn:
        before(dsn)
        with Clients(place, dsn, rate=rate) as clients:
            work_for(clients, _WARM_UP)
            place.checkpoint()
            baseline = work_for(clients, _BASELINE)
            result = act(dsn)
            work_for(clients, _AFTERWARDS)
            clients.stop()
    return clients, baseline, result
