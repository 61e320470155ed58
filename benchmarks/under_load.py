"""Clients at work all the time: total, what they wait, how long the lock is held."""

from __future__ import annotations

from statistics import median

from benchmarks import contest
from benchmarks.contest import Round
from benchmarks.place import Place
from benchmarks.results import Goal, Line, Outcome, memory_line, side_by_side
from benchmarks.sizes import Sizes

RATE = 1500
"""Transactions per second of all clients together."""


def run(place: Place, sizes: Sizes) -> Outcome:
    """Five cutovers, each beside an ALTER in the same round."""
    ours: list[Round] = []
    alters: list[Round] = []
    for number in range(sizes.rounds or 5):
        if number % 2:
            alters.append(contest.alter(place, rate=RATE))
        ours.append(contest.ours(place, rate=RATE, waits=sizes.waits))
        if not number % 2:
            alters.append(contest.alter(place, rate=RATE))
    pairs = list(zip(ours, alters, strict=True))
    slower = [(o.copy_median or 0.0, o.baseline_median) for o in ours]
    held = median(o.lock_held or 0.0 for o in ours)
    blocked = median(a.total * 1000 for a in alters)
    longest = max(o.longest_wait for o in ours)
    longest_alter = max(a.longest_wait for a in alters)
    return Outcome(
        "under_load",
        place.version,
        [
            side_by_side(
                "load: setup to swap / blocking ALTER",
                "s",
                [(o.total, a.total) for o, a in pairs],
                Goal("at most", 1.6),
            ),
            side_by_side(
                "load: median client wait, copy / baseline", "ms", slower, Goal("at most", 3)
            ),
            Line("load: lock held (ALTER: all its time)", "ms", held, blocked, None, _at_most(10)),
            Line(
                "load: longest client wait in cutover",
                "ms",
                longest,
                longest_alter,
                None,
                _at_most(50),
            ),
            memory_line("load", [o.peak_megabytes for o in ours]),
        ],
        {
            "ours": [o.as_json() for o in ours],
            "alter": [a.as_json() for a in alters],
            "rate_per_s": RATE,
        },
    )


def _at_most(limit: float) -> Goal:
    return Goal("at most", limit)
