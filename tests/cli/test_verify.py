"""``restructure verify``: what it says, to whom it says it, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.cli.command import Running, document, restructure
from tests.cli.conftest import ROWS, Gate

READY = "all of them equal"
DAMAGE = "UPDATE restructure_items.items SET note = 'secret' WHERE id IN (7, 8)"


def test_a_job_that_nobody_attends(items: psycopg.Connection, database: str, plan: Path) -> None:
    assert restructure("verify", "items", dsn=database).returncode == 2, "no such job"
    assert restructure("run", plan, dsn=database).returncode == 0
    done = restructure("--output", "json", "verify", "items", dsn=database)
    assert done.returncode == 0, done.stderr
    assert document(done)["rows"] == ROWS

    items.execute(DAMAGE)
    done = restructure("verify", "items", dsn=database)
    assert done.returncode == 4
    assert "2 keys" in done.stderr and "(7), (8)" in done.stderr and "--repair" in done.stderr
    assert "secret" not in done.stdout + done.stderr
    done = restructure("--output", "json", "cutover", "items", dsn=database)
    assert done.returncode == 4
    error = document(done)["error"]
    assert (error["kind"], error["keys"]) == ("VerifyMismatch", [["7"], ["8"]])
    shown = restructure("status", "items", dsn=database)
    assert "DIFFERENT" in shown.stdout and "secret" not in shown.stdout

    assert restructure("verify", "items", "--repair", dsn=database).returncode == 0
    shown = restructure("status", "items", dsn=database)
    assert "every row was equal at" in shown.stdout
    assert restructure("cutover", "items", "--then", "leave", dsn=database).returncode == 0
    assert restructure("verify", "items", dsn=database).returncode == 2, "after the cutover"


def test_the_process_that_attends_is_asked(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    with Running("run", plan, "--then", "stay", dsn=database) as tool:
        tool.said(READY)
        done = restructure("verify", "items", dsn=database)
        assert done.returncode == 0, done.stderr
        assert "Asked the process" in done.stderr
        items.execute(DAMAGE)
        assert restructure("verify", "items", dsn=database).returncode == 4
        done = restructure("cutover", "items", dsn=database)
        assert done.returncode == 4, done.stderr
        assert tool.process.poll() is None, "it stays, and the slot is read"
        assert restructure("verify", "items", "--repair", dsn=database).returncode == 0
        assert restructure("pause", "items", dsn=database).returncode == 0
        assert restructure("verify", "items", dsn=database).returncode == 5


def test_not_before_the_job_is_ready(gate: Gate) -> None:
    with gate.closed(), Running("run", gate.plan, dsn=gate.dsn) as tool:
        tool.said("copying rows")
        done = restructure("verify", "items", dsn=gate.dsn)
        assert done.returncode == 5
        assert "phase copy" in done.stderr
