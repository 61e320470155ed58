"""``restructure check PLAN --data``: exit codes, what is printed, and Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import psycopg

from tests.cli.command import Running, document, restructure
from tests.cli.conftest import ROWS, Gate
from tests.cli.test_looking import inventory
from tests.pipeline.moments import eventually, value

_OURS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'restructure items check%'"
)


def strict_plan(folder: Path) -> Path:
    file = folder / "strict.yaml"
    file.write_text("name: items\ntable: items\nalter: [ALTER note SET NOT NULL]\n")
    return file


def test_rows_that_would_be_refused_are_exit_3(
    items: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    plan = strict_plan(tmp_path)
    items.execute("UPDATE items SET note = NULL WHERE id IN (11, 400)")
    before = inventory(items)
    assert restructure("check", plan, dsn=database).returncode == 0

    done = restructure("check", plan, "--data", dsn=database)

    assert done.returncode == 3, done.stderr
    assert "refused  data: not_null: 2 rows of public.items: note would be NULL" in done.stdout
    assert "id: 11, 400\n" in done.stdout and "→" in done.stdout
    assert f"{ROWS:,} rows were looked at" in done.stdout
    assert inventory(items) == before

    found = document(restructure("check", plan, "--data", "--output", "json", dsn=database))
    assert found["ok"] is False
    data = found["data"]
    assert data.pop("seconds") > 0
    assert data == {
        "rows": ROWS,
        "complete": True,
        "key": ["id"],
        "refused": [
            {
                "kind": "not_null",
                "name": "note",
                "reason": "",
                "rows": 2,
                "keys": [["11"], ["400"]],
            }
        ],
        "not_looked_at": [],
        "asked_of_all_rows": [],
    }


def test_what_it_finds_nothing_in_goes_through(
    items: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    plan = strict_plan(tmp_path)
    assert restructure("check", plan, "--data", dsn=database).returncode == 0
    words = ("--cutover", "--then", "leave")
    assert restructure("run", plan, *words, dsn=database).returncode == 0
    again = restructure("check", plan, "--data", dsn=database)
    assert again.returncode == 2
    assert "under way" in again.stderr


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(
    items: psycopg.Connection, database: str, gate: Gate
) -> None:
    before = inventory(items)
    with gate.closed(), Running("check", gate.plan, "--data", dsn=database) as tool:
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        tool.until(lambda: value(items, waits) != 0, "waiting in a statement")
        tool.interrupt()
        assert tool.finish() == 130
        assert "Nothing was changed" in tool.stderr
        assert "Traceback" not in tool.stderr
        eventually(lambda: value(items, _OURS) == 0, "no session of ours is left")
    assert inventory(items) == before
