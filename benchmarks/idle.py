"""Nobody else at work: from setup to swap against the blocking ALTER TABLE on the same data."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from benchmarks import orders
from benchmarks.place import Place
from benchmarks.results import Goal, Outcome, memory_line, side_by_side
from benchmarks.sizes import Sizes
from benchmarks.tool import History, Tool, read_history

_LIMIT = {15: 1.1}
_LIMIT_OF_OTHERS = 0.9


def run(place: Place, sizes: Sizes) -> Outcome:
    """Both sides in each round, in turn first, each on a fresh copy after a checkpoint."""
    histories: list[History] = []
    alters: list[float] = []
    peaks: list[float] = []
    walls: list[float] = []
    waits: list[dict[str, Any]] = []

    def ours() -> None:
        with place.copy("idle_ours") as dsn:
            place.checkpoint()
            began = time.monotonic()
            with Tool(dsn, "--cutover", "--then", "leave", waits=sizes.waits) as tool:
                tool.finish()
                walls.append(time.monotonic() - began)
                peaks.append(tool.peak_megabytes)
                waits.append(tool.waits)
            histories.append(read_history(dsn))

    def alter() -> None:
        with place.copy("idle_alter") as dsn, psycopg.connect(dsn, autocommit=True) as session:
            place.checkpoint()
            began = time.monotonic()
            session.execute(orders.BLOCKING_ALTER)
            alters.append(time.monotonic() - began)

    for number in range(sizes.rounds or 3):
        for side in (ours, alter) if number % 2 == 0 else (alter, ours):
            side()
    took = [history.setup_to_swap for history in histories]
    goal = Goal("at most", _LIMIT.get(place.version, _LIMIT_OF_OTHERS))
    return Outcome(
        "idle",
        place.version,
        [
            side_by_side(
                "idle: setup to swap / blocking ALTER",
                "s",
                list(zip(took, alters, strict=True)),
                goal,
            ),
            memory_line("idle", peaks),
        ],
        {
            "ours": [history.as_json() for history in histories],
            "ours_process_s": walls,
            "alter_s": alters,
            "resident_mb": peaks,
            "waits": waits,
        },
    )
