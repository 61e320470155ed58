"""Beside pg_repack, where Debian's package is installed: same table, same clients."""

from __future__ import annotations

from benchmarks import contest
from benchmarks.contest import Round
from benchmarks.place import Place
from benchmarks.results import Line, Outcome, side_by_side
from benchmarks.sizes import Sizes
from benchmarks.under_load import RATE


def run(place: Place, sizes: Sizes) -> Outcome:
    """Skipped, with the reason, where program or extension is missing: nothing is installed."""
    outcome = Outcome("repack", place.version)
    with place.admin() as admin:
        known = admin.execute(
            "SELECT FROM pg_available_extensions WHERE name = 'pg_repack'"
        ).fetchone()
    if known is None or not place.program("pg_repack").exists():
        outcome.skipped = f"pg_repack is not installed (postgresql-{place.version}-repack)"
        return outcome
    ours: list[Round] = []
    others: list[Round] = []
    for number in range(sizes.rounds or 3):
        if number % 2:
            others.append(contest.repack(place, rate=RATE))
        ours.append(contest.ours(place, rate=RATE))
        if not number % 2:
            others.append(contest.repack(place, rate=RATE))
    pairs = list(zip(ours, others, strict=True))
    longest = max(o.longest_wait for o in ours), max(o.longest_wait for o in others)
    outcome.lines = [
        side_by_side("repack: total", "s", [(o.total, r.total) for o, r in pairs]),
        Line("repack: longest client wait", "ms", *longest),
    ]
    outcome.samples = {
        "ours": [o.as_json() for o in ours],
        "repack": [o.as_json() for o in others],
    }
    return outcome
