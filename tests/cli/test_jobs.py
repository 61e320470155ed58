"""Commands that work on a job, one after the other, as an operator types them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.cli.command import Running, document, environment, restructure
from tests.cli.conftest import ROWS, Gate
from tests.pipeline.moments import wait_until_released

READY = "the shadow is in step"


def key_type(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid = 'public.items'::regclass AND attname = 'id'"
    ).fetchone()
    assert row is not None
    return str(row[0])


def left_behind(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'restructure%'"
        " UNION ALL SELECT 'publication ' || pubname FROM pg_publication"
        " UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots"
        " WHERE database = current_database()"
    ).fetchall()
    return [name for (name,) in rows]


def status(dsn: str, job: str = "items") -> dict[str, object]:
    found: dict[str, object] = document(restructure("status", job, "--output", "json", dsn=dsn))[
        "jobs"
    ][0]
    return found


def test_from_a_run_to_the_end(items: psycopg.Connection, database: str, plan: Path) -> None:
    ready = restructure("run", plan, dsn=database)
    assert ready.returncode == 0, ready.stderr
    assert "Nobody attends job items now" in ready.stderr
    assert "restructure cutover items" in ready.stdout
    assert "\x1b" not in ready.stdout + ready.stderr
    assert key_type(items) == "integer"

    items.execute("UPDATE items SET note = 'late' WHERE id = 1")
    done = restructure("--output", "json", "cutover", "items", "--then", "leave", dsn=database)
    assert done.returncode == 0, done.stderr
    assert "lock held" in done.stderr
    job = document(done)["job"]
    assert job["phase"] == "live"
    assert job["receipt"]["attempts"] >= 1  # more where a busy machine has spoilt one
    assert job["receipt"]["lock_held_ms"] > 0
    assert key_type(items) == "bigint"
    assert items.execute("SELECT note FROM items WHERE id = 1").fetchone() == ("late",)

    assert job["way_back"]["open"] is True
    assert job["way_back"]["would_lose"] is None
    assert restructure("cutover", "items", "--then", "leave", dsn=database).returncode == 0
    assert restructure("abort", "items", "--yes", dsn=database).returncode == 2

    unasked = restructure("finalize", "items", dsn=database)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    assert restructure("finalize", "items", "--yes", dsn=database).returncode == 0
    assert restructure("finalize", "items", "--yes", dsn=database).returncode == 0
    assert restructure("pause", "items", dsn=database).returncode == 2
    assert left_behind(items) == ["schema restructure"]

    again = restructure("run", plan, "--cutover", dsn=database)
    assert again.returncode == 0
    assert "--start-over" in again.stderr


def test_through_the_cutover_at_once(items: psycopg.Connection, database: str, plan: Path) -> None:
    done = restructure("run", plan, "--cutover", "--then", "finalize", dsn=database)
    assert done.returncode == 0, done.stderr
    assert key_type(items) == "bigint"
    assert items.execute("SELECT count(*) FROM items").fetchone() == (ROWS,)
    assert status(database)["phase"] == "finalized"


def test_ctrl_c_in_the_copy_and_the_same_command_again(
    items: psycopg.Connection, database: str, gate: Gate
) -> None:
    with gate.closed(), Running("run", gate.plan, dsn=database) as tool:
        tool.said("copying rows")
        tool.interrupt()
        assert tool.finish() == 130
        assert "run the same command again" in tool.stderr.lower()
        assert "Traceback" not in tool.stderr
    stopped = status(database)
    assert stopped["phase"] == "copy"
    assert stopped["attended"] is False
    done = restructure("run", gate.plan, "--cutover", "--then", "leave", dsn=database)
    assert done.returncode == 0
    assert items.execute("SELECT count(*) FROM items").fetchone() == (ROWS,)
    assert key_type(items) == "bigint"


def test_sigterm_is_a_safe_stop_too(items: psycopg.Connection, database: str, gate: Gate) -> None:
    with gate.closed(), Running("run", gate.plan, dsn=database) as tool:
        tool.said("copying rows")
        tool.interrupt(signal.SIGTERM)
        assert tool.finish() == 130
        assert "SIGTERM" in tool.stderr


def test_a_second_ctrl_c_leaves_at_once(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    with Running("run", plan, dsn=database, RESTRUCTURE_FAILPOINT="setup.barrier=stop") as tool:
        tool.said("slot")
        stat = Path(f"/proc/{tool.process.pid}/stat")
        tool.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "the failpoint")
        with psycopg.connect(database) as blocker:
            blocker.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            tool.interrupt(signal.SIGCONT)
            tool.until(
                lambda: (
                    items.execute(
                        "SELECT FROM pg_locks WHERE relation = 'items'::regclass AND NOT granted"
                    ).fetchone()
                    is not None
                ),
                "waiting for the lock",
            )
            tool.interrupt()
            tool.said("Ctrl-C again leaves at once")
            tool.interrupt()
            assert tool.finish() == 130
    assert restructure("run", plan, dsn=database).returncode == 0


def test_a_job_that_is_attended_is_asked_for_its_cutover(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    with Running("run", plan, "--then", "stay", dsn=database) as tool:
        tool.said(READY)
        attended = status(database)
        assert attended["attended"] is True
        assert attended["error"] is None
        done = restructure("cutover", "items", dsn=database)
        assert done.returncode == 0, done.stderr
        assert "Asked the process" in done.stderr
        assert "lock held" in done.stdout
        tool.said("kept in step")  # the process stays, and keeps the old table in step
        items.execute("UPDATE items SET note = 'late' WHERE id = 1")
        back = restructure("revert", "items", dsn=database)
        assert back.returncode == 0, back.stderr
        assert key_type(items) == "integer"
        assert items.execute("SELECT note FROM items WHERE id = 1").fetchone() == ("late",)
        assert restructure("cutover", "items", dsn=database).returncode == 0
        tool.interrupt()
        assert tool.finish() == 130
    assert key_type(items) == "bigint"


def test_a_cutover_says_who_blocks_it_and_tries_again(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    with psycopg.connect(make_conninfo(database, application_name="reporting")) as blocker:
        blocker.execute("SELECT count(*) FROM items")
        with Running("cutover", "items", "--then", "leave", dsn=database) as tool:
            tool.said("cutover not yet")
            tool.said(f"pid {blocker.info.backend_pid} (")
            assert "reporting" in tool.stderr
            blocker.rollback()
            assert tool.finish() == 0
            assert "swapped: lock held" in tool.stderr
    assert key_type(items) == "bigint"


def test_a_cutover_that_gives_up_is_exit_5_and_is_no_longer_asked_for(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    plan.write_text(
        plan.read_text() + "cutover: {attempts: 1, lock_timeout: 100ms, lock_budget: 10s}\n"
    )
    with Running("run", plan, "--then", "stay", dsn=database) as tool:
        tool.said(READY)
        with psycopg.connect(database) as blocker:
            blocker.execute("SELECT count(*) FROM items")
            done = restructure("cutover", "items", dsn=database)
            assert done.returncode == 5
            assert f"pid {blocker.info.backend_pid} (" in done.stderr
        assert tool.finish() == 5
    left = status(database)
    assert left["phase"] == "ready"
    assert left["request"] is None
    assert left["error"] is not None


def test_pause_holds_and_resume_goes_on(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    with Running("run", plan, "--then", "stay", dsn=database) as tool:
        tool.said(READY)
        assert "attended by" in restructure("pause", "items", dsn=database).stdout
        assert status(database)["paused"] is True
        refused = restructure("cutover", "items", dsn=database)
        assert refused.returncode == 5
        assert "resume items" in refused.stderr
        assert "goes on" in restructure("resume", "items", dsn=database).stdout
        tool.interrupt()
        assert tool.finish() == 130
    assert "nobody attends" in restructure("resume", "items", dsn=database).stdout


def test_abort_asks_first_and_then_leaves_nothing(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    unasked = restructure("abort", "items", dsn=database)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    assert len(left_behind(items)) > 1
    done = restructure("--output", "json", "abort", "items", "--yes", dsn=database)
    assert done.returncode == 0, done.stderr
    assert document(done)["phase"] == "aborted"
    assert left_behind(items) == []
    assert items.execute("SELECT count(*) FROM items").fetchone() == (ROWS,)


def test_abort_of_a_job_that_is_attended_makes_its_process_leave(
    items: psycopg.Connection, database: str, gate: Gate
) -> None:
    with gate.closed(), Running("run", gate.plan, dsn=database) as tool:
        tool.said("copying rows")
        assert restructure("abort", "items", "--yes", dsn=database).returncode == 0
        assert tool.finish() == 130
        assert "abort was asked for" in tool.stderr
    assert left_behind(items) == []


def test_start_over_begins_with_an_empty_shadow(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    plan.write_text(plan.read_text().replace("bigint", "numeric"))
    other = restructure("run", plan, dsn=database)
    assert other.returncode == 2
    assert "another plan" in other.stderr
    words = ("--start-over", "--cutover", "--then", "finalize")
    assert restructure("run", plan, *words, dsn=database).returncode == 0
    assert key_type(items) == "numeric"


def test_plan_refuses_a_job_that_has_begun(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    done = restructure("plan", plan, dsn=database)
    assert done.returncode in (2, 3)
    assert "items" in done.stderr


def test_status_shows_what_nobody_attends_and_what_it_holds(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    items.execute("UPDATE items SET note = 'x'")
    found = status(database)
    assert found["attendant"] is None
    assert isinstance(found["slot_retained_bytes"], int)
    assert isinstance(found["lag_bytes"], int)
    assert found["lag_bytes"] > 0
    assert found["lag_seconds"] is None
    events = [entry["event"] for entry in found["journal"]]  # type: ignore[attr-defined]
    assert "copied" in events
    text = restructure("status", dsn=database).stdout
    assert "attended by  NOBODY" in text
    assert "WARNING" in text


def test_status_names_quarantined_keys_with_their_reason(
    items: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    plan = tmp_path / "p.yaml"
    plan.write_text("name: items\ntable: items\nalter: [ADD CHECK (note <> 'bad')]\n")
    items.execute("UPDATE items SET note = 'bad' WHERE id = 7")
    assert restructure("run", plan, dsn=database).returncode == 0
    found = status(database)
    assert found["quarantined_keys"] == 1
    assert found["quarantined"][0]["key"] == ["7"]  # type: ignore[index]
    text = restructure("status", "items", dsn=database).stdout
    assert "key (7): CheckViolation" in text


def test_a_slot_that_is_gone_is_seen_without_a_runner(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    wait_until_released(items)
    items.execute("SELECT pg_drop_replication_slot('restructure_items')")
    assert "gone" in str(status(database)["stream_error"])
    done = restructure("cutover", "items", dsn=database)
    assert done.returncode == 6
    assert "gone" in done.stderr


def test_watching_prints_one_document_per_line(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    assert restructure("run", plan, dsn=database).returncode == 0
    words = ("status", "items", "--watch", "--interval", "0.2", "--output", "json")
    with Running(*words, dsn=database) as watching:
        watching.until(lambda: watching.stdout.count("\n") >= 2, "two lines")
        assert restructure("abort", "items", "--yes", dsn=database).returncode == 0
        assert watching.finish() == 0
    first = json.loads(watching.stdout.splitlines()[0])
    assert first["jobs"][0]["phase"] == "ready"


@pytest.mark.pg_at_least(18)  # once is enough
def test_a_password_is_in_no_output_and_not_in_the_process_list(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    secret = str(conninfo_to_dict(database)["password"])
    with Running("-v", "run", plan, "--then", "stay", "--dsn", database) as tool:
        tool.said(READY)
        cmdline = Path(f"/proc/{tool.process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"--then" in cmdline
        assert not [word for word in cmdline if secret.encode() in word or b"--dsn" in word]
        tool.interrupt()
        assert tool.finish() == 130
    assert secret not in tool.stdout + tool.stderr
    shown = items.execute("SELECT string_agg(job::text, '') FROM restructure.job").fetchone()
    assert secret not in str(shown)


@pytest.mark.pg_at_least(18)  # once is enough
def test_a_terminal_gets_a_bar_and_no_color_takes_its_colours_away(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    def on_a_terminal(**more: str) -> str:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "restructure", "run", str(plan)],
            env=environment(database, TERM="xterm-256color", **more),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            seen = b""
            while True:
                try:
                    seen += os.read(ours, 4096)
                except OSError:  # Linux says EIO when the last writer has gone
                    break
            process.wait()
        os.close(ours)
        assert process.returncode == 0
        return seen.decode()

    assert "\x1b[?25l" in on_a_terminal()
    assert "\x1b[33m" in on_a_terminal()
    plain = on_a_terminal(NO_COLOR="1")
    assert "\x1b[33m" not in plain
    assert "Nobody attends" in plain
