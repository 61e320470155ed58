"""A full verification of an idle job, against the plainest look at each side, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import orders
from benchmarks.place import Place
from benchmarks.results import Goal, Outcome, side_by_side
from benchmarks.sizes import Sizes
from benchmarks.tool import Tool, ToolFailed

_ROOT = Path(__file__).resolve().parents[1]
_LOOK = sql.SQL("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {} AS t")
_SIDES = (sql.Identifier("public", orders.TABLE), sql.Identifier("restructure_bench", orders.TABLE))


def run(place: Place, sizes: Sizes) -> Outcome:
    """Both in each round, in turn first, on the same two tables."""
    ours: list[float] = []
    looks: list[float] = []
    walls: list[float] = []
    with place.copy("verify") as dsn:
        with Tool(dsn) as tool:
            tool.finish()
        place.checkpoint()
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute("VACUUM (ANALYZE) restructure_bench.orders")

            def verify() -> None:
                began = time.monotonic()
                answer = _verify(dsn)
                walls.append(time.monotonic() - began)
                times = [datetime.fromisoformat(answer[name]) for name in ("began_at", "ended_at")]
                ours.append((times[1] - times[0]).total_seconds())

            def look() -> None:
                began = time.monotonic()
                for side in _SIDES:
                    session.execute(_LOOK.format(side))
                looks.append(time.monotonic() - began)

            for number in range(sizes.rounds or 3):
                for side in (verify, look) if number % 2 == 0 else (look, verify):
                    side()
    return Outcome(
        "verify",
        place.version,
        [
            side_by_side(
                "verify: all rows / hashing both tables as text",
                "s",
                list(zip(ours, looks, strict=True)),
                Goal("at most", 1.1),
            )
        ],
        {"ours_s": ours, "command_s": walls, "looks_s": looks},
    )


def _verify(dsn: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "restructure", "--output", "json", "verify", orders.JOB],
        cwd=_ROOT,
        env={**os.environ, "RESTRUCTURE_DSN": dsn},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise ToolFailed(f"exit code {answer.returncode}: {answer.stdout[-500:]}")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found
