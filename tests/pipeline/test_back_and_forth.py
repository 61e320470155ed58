"""Cutover, revert, cutover …, with kills, crashes and cut connections, under writers: nothing is lost.

RESTRUCTURE_TURNS sets how many turns there are, RESTRUCTURE_SEED makes them the same again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psycopg
import pytest

from tests.fix_server import FreshServer
from tests.pipeline.test_kills import command, finished, phase_of, plan_file
from tests.pipeline.tool import leftovers
from tests.workload import Workload, seed

ROWS = 3_000
TURNS = int(os.environ.get("RESTRUCTURE_TURNS", "3"))
NAME = "items"


def sessions_of_ours(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as session:
        rows = session.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'restructure %'"
        ).fetchall()
    return [pid for (pid,) in rows]


def cut(dsn: str) -> None:
    """End every session of the tool's, its walsender too."""
    with psycopg.connect(dsn, autocommit=True) as session:
        for pid in sessions_of_ours(dsn):
            session.execute("SELECT pg_terminate_backend(%s)", (pid,))


def crash(dsn: str) -> None:
    """SIGKILL one backend: the server ends all others and recovers."""
    with psycopg.connect(dsn) as session:
        os.kill(session.info.backend_pid, signal.SIGKILL)


def steadily_phase(dsn: str) -> str | None:
    """The job's phase, asked until the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with psycopg.connect(dsn) as session:
                return phase_of(session, NAME)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def turn(dsn: str, goal: str, trouble: str, after: float) -> str:
    """Try once to get to ``goal`` with ``trouble`` in between; what became of it."""
    word = "cutover" if goal == "live" else "revert"
    process = command(dsn, word, NAME, "--then", "leave")
    time.sleep(after)
    if trouble == "kill":
        process.kill()
    elif trouble == "crash":
        crash(dsn)
    elif trouble == "cut":
        cut(dsn)
    code, stderr = finished(process)
    assert code in (0, -9 if trouble == "kill" else 0, 5), f"{word} after {trouble}: {stderr}"
    return f"{word} {trouble} {after:.2f} s: {code}"


@pytest.mark.timeout(900)
def test_no_schedule_of_cutovers_and_reverts_loses_or_doubles_a_write(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    chosen = int(os.environ.get("RESTRUCTURE_SEED", random.randrange(1 << 30)))
    print(f"RESTRUCTURE_SEED={chosen}")
    chance = random.Random(chosen)
    dsn = fresh_server().dsn
    with psycopg.connect(dsn, autocommit=True) as session:
        seed(session, ROWS)
    goal = "live"
    with Workload(dsn, ROWS, seed=chosen, pause=0.01, bears_crashes=True) as load:
        code, stderr = finished(command(dsn, "run", plan_file(tmp_path, NAME)))
        assert code == 0, stderr
        for _ in range(TURNS):
            trouble = chance.choice(("kill", "kill", "crash", "cut", "none"))
            print(turn(dsn, goal, trouble, chance.uniform(0.3, 2.5)))
            while steadily_phase(dsn) != goal:
                print(turn(dsn, goal, "none", 0))
            load.wait_for_writes(30)
            goal = "reverted" if goal == "live" else "live"
        # what the other table holds shows when it serves
        for goal in ("live", "reverted", "live"):
            if steadily_phase(dsn) != goal:
                print(turn(dsn, goal, "none", 0))
                assert steadily_phase(dsn) == goal
            load.wait_for_writes(10)
        load.stop()
        with psycopg.connect(dsn) as session:
            load.assert_complete(session)


MOMENTS = (
    "way back.stream",
    "cutover.prepared",
    "cutover.locked",
    "cutover.drained",
    "cutover.swapped",
    "cutover.before commit",
    "cutover.after commit",
    "live.dropped",
    "live.retired",
)
"""In the order in which a revert, and then whoever goes on with it, passes them."""


@pytest.mark.timeout(600)
def test_a_kill_at_every_moment_of_a_revert_and_of_the_end(
    database: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    seed(connection, ROWS)
    plan = plan_file(tmp_path, NAME)
    with Workload(database, ROWS) as load:
        code, stderr = finished(command(database, "run", plan, "--cutover", "--then", "leave"))
        assert code == 0, stderr
        for moment in MOMENTS:
            words = ("revert", NAME, "--then", "leave")
            code, stderr = finished(command(database, *words, failpoint=f"{moment}=kill"))
            assert code == -9, f"{moment} was not reached: {stderr}"
        code, stderr = finished(command(database, *words))
        assert code == 0, stderr
        load.wait_for_writes(20)
        code, stderr = finished(command(database, "cutover", NAME, "--then", "leave"))
        assert code == 0, stderr
        load.wait_for_writes(20)
        load.stop()
        load.assert_complete(connection)
    for moment in ("finalize.streams", "removal.dropped"):
        words = ("finalize", NAME, "--yes")
        code, stderr = finished(command(database, *words, failpoint=f"{moment}=kill"))
        assert code == -9, f"{moment} was not reached: {stderr}"
    code, stderr = finished(command(database, *words))
    assert code == 0, stderr
    left = [thing for thing in leftovers(database) if thing != "schema restructure"]
    assert left == []
