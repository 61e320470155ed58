"""A source that writes faster than anybody can apply: known, said, and never forced."""

from __future__ import annotations

import time

import psycopg

from benchmarks.clients import FLOOD, Clients
from benchmarks.place import Place
from benchmarks.results import Goal, Line, Outcome, memory_line
from benchmarks.sizes import Sizes
from benchmarks.tool import Tool, status

_SAID_WITHIN = 180.0
_LOOK_FOR = 30.0


def run(place: Place, sizes: Sizes) -> Outcome:
    """Flood a job that was asked to cut over; then stop, and see it arrive."""
    with (
        place.copy("never") as dsn,
        psycopg.connect(dsn, autocommit=True) as session,
        Tool(dsn, "--then", "stay") as tool,
    ):
        tool.until(lambda: _phase(session) == "ready")
        with Clients(place, dsn, rate=None, clients=8, mix=FLOOD, synchronous=False) as clients:
            tool.until(lambda: _pending(session) > 100_000)
            session.execute("UPDATE restructure.job SET request = 'cutover'")
            said = _watch(session, tool)
            swapped_under_flood = _phase(session) == "live"
            standing = status(dsn)
            clients.stop()
        calm = time.monotonic()
        tool.finish()
        arrived = time.monotonic() - calm
    peak = tool.peak_megabytes
    return Outcome(
        "never",
        place.version,
        [
            Line(
                "flood: 'never at this rate' is said (1 = yes)",
                "",
                float(said is not None),
                goal=_YES,
            ),
            Line(
                "flood: no cutover was forced (1 = yes)",
                "",
                float(not swapped_under_flood),
                goal=_YES,
            ),
            Line("flood: from its end to live", "s", arrived),
            memory_line("flood", [peak]),
        ],
        {
            "said": said,
            "blocked_by": standing["progress"].get("blocked_by"),
            "pending_keys": standing["pending_keys"],
            "arrived_after_s": arrived,
            "resident_mb": peak,
            "rows": sizes.rows,
        },
    )


_YES = Goal("at least", 1)


def _watch(session: psycopg.Connection, tool: Tool) -> str | None:
    """Look on while the flood lasts; what the job says where it knows that it cannot arrive."""
    deadline = time.monotonic() + _SAID_WITHIN
    said: str | None = None
    while time.monotonic() < deadline and tool.running:
        row = session.execute(
            "SELECT concat_ws('; ', progress ->> 'forecast', progress ->> 'blocked_by'), phase"
            " FROM restructure.job"
        ).fetchone()
        assert row is not None
        if said is None and "never at this rate" in row[0]:
            said = row[0]
            deadline = time.monotonic() + _LOOK_FOR
        if row[1] == "live":
            break
        time.sleep(0.2)
    return said


def _phase(session: psycopg.Connection) -> str:
    row = session.execute("SELECT to_regclass('restructure.job') IS NOT NULL").fetchone()
    if not (row and row[0]):
        return ""
    row = session.execute("SELECT phase FROM restructure.job").fetchone()
    return str(row[0]) if row else ""


def _pending(session: psycopg.Connection) -> int:
    row = session.execute(
        "SELECT coalesce((progress ->> 'pending_keys')::bigint, 0) FROM restructure.job"
    ).fetchone()
    return int(row[0]) if row else 0
