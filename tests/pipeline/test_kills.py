"""SIGKILL at every named moment and at random ones, under writers: the same command goes on.

RESTRUCTURE_KILLS sets how many random kills there are, RESTRUCTURE_SEED makes them the same again.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import psycopg
import pytest

from tests.pipeline.tool import PATIENCE, leftovers
from tests.start import Command
from tests.workload import PLAN, Workload, seed

ROWS = 30_000
KILLS = int(os.environ.get("RESTRUCTURE_KILLS", "30"))

MOMENTS = (
    "advance.setup",
    "setup.stream",
    "setup.barrier",
    "setup.commit",
    "advance.index",
    "index.deleted",
    "index.built",
    "advance.catchup",
    "catchup.applied",
    "advance.ready",
    "verify.begun",
    "verify.range",
    "verify.settled",
    "advance.cutover",
    "way back.stream",
    "cutover.before lock",
    "cutover.locked",
    "cutover.drained",
    "cutover.swapped",
    "cutover.before commit",
    "cutover.after commit",
    "live.dropped",
)
"""In the order in which one job passes them."""

TO_CUTOVER = ("--cutover", "--then", "leave")


def command(dsn: str, *words: str, failpoint: str = "") -> Command:
    """Start ``restructure`` as a user does."""
    return Command(
        words, {**os.environ, "RESTRUCTURE_DSN": dsn, "RESTRUCTURE_FAILPOINT": failpoint}
    )


def finished(process: Command) -> tuple[int, str]:
    return process.wait(PATIENCE), process.stderr


def plan_file(folder: Path, name: str, text: str = PLAN) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(text.format(name=name))
    return str(file)


def phase_of(session: psycopg.Connection, name: str) -> str | None:
    exists = session.execute("SELECT to_regclass('restructure.job') IS NOT NULL").fetchone()
    if exists != (True,):
        return None
    row = session.execute(
        "SELECT phase FROM restructure.job WHERE name = %s ORDER BY id DESC LIMIT 1", (name,)
    ).fetchone()
    return str(row[0]) if row else None


@pytest.mark.timeout(600)
def test_a_kill_at_every_moment_of_one_job(
    database: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    seed(connection, ROWS)
    plan = plan_file(tmp_path, "items")
    with Workload(database, ROWS) as load:
        for moment in MOMENTS:
            code, stderr = finished(
                command(database, "run", plan, *TO_CUTOVER, failpoint=f"{moment}=kill")
            )
            assert code == -9, f"{moment} was not reached: {stderr}"
        code, stderr = finished(command(database, "run", plan, *TO_CUTOVER))
        assert code == 0, stderr
        load.wait_for_writes(20)
        load.stop()
        load.assert_complete(connection)
    for moment in ("finalize.streams", "removal.dropped"):
        code, stderr = finished(
            command(database, "finalize", "items", "--yes", failpoint=f"{moment}=kill")
        )
        assert code == -9, f"{moment} was not reached: {stderr}"
    code, stderr = finished(command(database, "finalize", "items", "--yes"))
    assert code == 0, stderr
    assert leftovers(database) == ["schema restructure"]


PHASES = ("planned", "setup", "copy", "index", "catchup", "ready", "cutover", "live", "finalized")
TO_THE_END = ("--cutover", "--then", "finalize")


def wait_for_phase(session: psycopg.Connection, name: str, phase: str, process: Command) -> None:
    """Until the job is in ``phase`` or past it, or its process has ended."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        now = phase_of(session, name)
        if now is not None and PHASES.index(now) >= PHASES.index(phase):
            return
        assert time.monotonic() < deadline
        time.sleep(0.002)


def shapes(number: int) -> str:
    """Plans that can follow each other on one table."""
    if number == 0:
        return PLAN
    kind = "bigint" if number % 2 else "integer"
    return f"name: {{name}}\ntable: items\nalter: [ALTER COLUMN amount TYPE {kind}]\ncopy: {{{{chunk_target: 20ms}}}}\n"


@pytest.mark.timeout(900)
def test_kills_at_random_moments_of_many_jobs(
    database: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    chosen = int(os.environ.get("RESTRUCTURE_SEED", random.randrange(1 << 30)))
    print(f"RESTRUCTURE_SEED={chosen}")
    chance = random.Random(chosen)
    seed(connection, ROWS)
    kills: dict[str | None, int] = {}
    job = 0
    with Workload(database, ROWS, seed=chosen, pause=0.006) as load:
        while sum(kills.values()) < KILLS:
            name = f"items-{job}"
            plan = plan_file(tmp_path, name, shapes(job))
            process = command(database, "run", plan, *TO_THE_END)
            reached = phase_of(connection, name) or "planned"
            if reached != "finalized":
                target = chance.randrange(PHASES.index(reached), len(PHASES))
                wait_for_phase(connection, name, PHASES[target], process)
                time.sleep(chance.uniform(0, 0.2))
                process.kill()
            code, stderr = finished(process)
            if code == -9:
                phase = phase_of(connection, name)
                kills[phase] = kills.get(phase, 0) + 1
            else:
                assert code == 0, stderr
                job += 1
        plan = plan_file(tmp_path, f"items-{job}", shapes(job))
        code, stderr = finished(command(database, "run", plan, *TO_THE_END))
        assert code == 0, stderr
        load.wait_for_writes(20)
        load.stop()
        load.assert_complete(connection)
    print(f"killed in: {kills}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["abort.stream", "abort.committed"])
def test_an_abort_that_was_killed_is_repeated(
    database: str, connection: psycopg.Connection, tmp_path: Path, moment: str
) -> None:
    seed(connection, 2_000)
    plan = plan_file(tmp_path, "items")
    code, stderr = finished(command(database, "run", plan))
    assert code == 0, stderr
    code, _ = finished(command(database, "abort", "items", "--yes", failpoint=f"{moment}=kill"))
    assert code == -9
    finished(command(database, "abort", "items", "--yes"))
    assert leftovers(database) == []


@pytest.mark.timeout(300)
def test_the_table_is_free_soon_when_the_tool_freezes_under_the_lock(
    database: str, connection: psycopg.Connection, tmp_path: Path
) -> None:
    """SIGSTOP while it holds ACCESS EXCLUSIVE: the server ends the session by itself."""
    seed(connection, 2_000)
    plan = plan_file(tmp_path, "items")
    process = command(database, "run", plan, "--cutover", failpoint="cutover.swapped=stop")
    try:
        deadline = time.monotonic() + PATIENCE
        while phase_of(connection, "items") != "cutover" or not locked(connection):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        connection.execute("SET statement_timeout = '30s'")
        connection.execute("INSERT INTO items (id, code, amount) VALUES (-1, 'held', 1)")
        assert phase_of(connection, "items") == "cutover"
    finally:
        process.kill()
        finished(process)
    code, stderr = finished(command(database, "run", plan, *TO_CUTOVER))
    assert code == 0, stderr
    assert connection.execute("SELECT code FROM items WHERE id = -1").fetchone() == ("held",)


def locked(session: psycopg.Connection) -> bool:
    row = session.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        " AND relation IN (SELECT oid FROM pg_class WHERE relname = 'items'))"
    ).fetchone()
    return row == (True,)
