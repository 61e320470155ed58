"""Commands that look: check, plan, init, doctor, status. None of them changes anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.cli.command import document, environment, restructure

_INVENTORY = """
SELECT array_agg(nspname ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'
UNION ALL SELECT array_agg(pubname) FROM pg_publication
UNION ALL SELECT array_agg(slot_name) FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT array_agg(relname ORDER BY oid) FROM pg_class
 WHERE relnamespace = 'public'::regnamespace
"""


def inventory(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(_INVENTORY).fetchall()


def test_check_finds_nothing_wrong_and_says_what_to_type_next(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    before = inventory(items)
    done = restructure("check", plan, dsn=database)
    assert done.returncode == 0, done.stderr
    assert f"restructure run {plan}" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert inventory(items) == before


def test_check_shows_every_refusal_with_its_remedy_and_leaves_with_3(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    connection.execute("CREATE UNLOGGED TABLE items (id integer, note text)")
    done = restructure("check", plan, dsn=database)
    assert done.returncode == 3
    assert done.stdout.count("refused ") >= 2
    assert done.stdout.count("→") >= 2
    found = document(restructure("--output", "json", "check", plan, dsn=database))
    assert found["ok"] is False
    assert {"check", "message", "hint", "refuses"} == set(found["findings"][0])
    ran = restructure("run", plan, dsn=database)
    assert ran.returncode == 3
    assert "→" in ran.stderr
    assert inventory(connection)[1:3] == [(None,), (None,)]


def test_what_postgresql_refuses_is_shown_at_the_line_of_the_plan(
    items: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    plan = tmp_path / "p.yaml"
    plan.write_text("name: x\ntable: items\nalter:\n  - ALTER COLUMN nope TYPE bigint\n")
    done = restructure("check", plan, dsn=database)
    assert done.returncode == 2
    assert f"{plan}:4:" in done.stderr
    assert "nope" in done.stderr


def test_plan_shows_every_statement_and_changes_nothing(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    before = inventory(items)
    done = restructure("plan", plan, dsn=database)
    assert done.returncode == 0, done.stderr
    assert "Strongest lock on public.items before the swap: SHARE UPDATE EXCLUSIVE" in done.stdout
    for statement in (
        "CREATE PUBLICATION",
        "CREATE_REPLICATION_SLOT",
        "ALTER COLUMN id TYPE bigint",
        "INSERT INTO",
        "PRIMARY KEY",
        "MERGE INTO",
        "IN ACCESS EXCLUSIVE MODE",
        "SET SCHEMA",
        'PUBLICATION "restructure_items_reverse"',
        "Way back: for 1d",
        'id ← CAST("items"."id" AS integer)',
    ):
        assert statement in done.stdout
    assert "%" not in done.stdout
    assert inventory(items) == before


def test_plan_as_json_names_the_lock_of_every_statement(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    found = document(restructure("plan", plan, "--output", "json", dsn=database))
    assert found["strongest_lock_before_swap"] == "SHARE UPDATE EXCLUSIVE"
    assert "CREATE PUBLICATION" in found["strongest_lock_statement"]
    assert "ACCESS EXCLUSIVE on public.items" in found["swap_locks"]
    assert found["needed_bytes"] > 0
    phases = list(dict.fromkeys(step["phase"] for step in found["steps"]))
    assert phases == ["planned", "setup", "copy", "index", "catchup", "cutover", "live"]
    assert all(step["lock"] and step["why"] for step in found["steps"])


def test_the_setup_that_plan_shows_is_what_run_does(
    items: psycopg.Connection, database: str, plan: Path
) -> None:
    steps = document(restructure("plan", plan, "--output", "json", dsn=database))["steps"]
    shown = [step["text"] for step in steps if "CREATE PUBLICATION" in step["text"]]
    items.execute(shown[0])
    assert items.execute("SELECT count(*) FROM pg_publication_tables").fetchone() == (1,)


def test_init_writes_a_plan_that_check_accepts(
    items: psycopg.Connection, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "new.yaml"
    words = ("init", "items", "--alter", "ALTER COLUMN id TYPE bigint", "--file", file)
    assert restructure(*words, dsn=database).returncode == 0
    assert restructure("check", file, dsn=database).returncode == 0
    text = file.read_text()
    again = restructure(*words[:2], "--file", file, dsn=database)
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert file.read_text() == text
    assert restructure(*words[:2], "--file", file, "--force", dsn=database).returncode == 0
    assert file.read_text() != text
    assert restructure("init", "items", dsn=database).stdout == file.read_text()


def test_init_of_a_table_that_is_not_there_is_exit_2(
    items: psycopg.Connection, database: str
) -> None:
    done = restructure("init", "itmes", dsn=database)
    assert done.returncode == 2
    assert "public.items" in done.stderr


def test_doctor_names_server_and_role(connection: psycopg.Connection, database: str) -> None:
    done = restructure("doctor", dsn=database)
    assert done.returncode == 0, done.stdout
    assert "PostgreSQL 1" in done.stdout
    assert "wal_level" in done.stdout
    assert document(restructure("doctor", "--output", "json", dsn=database))["ok"] is True


def test_doctor_leaves_with_3_where_the_role_may_not_replicate(
    connection: psycopg.Connection, database: str
) -> None:
    create = sql.SQL("CREATE ROLE powerless LOGIN PASSWORD {}").format(sql.Literal("of no worth"))
    connection.execute(create)
    dsn = make_conninfo(database, user="powerless", password="of no worth")
    done = restructure("doctor", dsn=dsn)
    assert done.returncode == 3
    assert "REPLICATION" in done.stdout


def test_status_without_any_job(connection: psycopg.Connection, database: str) -> None:
    done = restructure("status", dsn=database)
    assert (done.returncode, done.stdout) == (0, "No jobs in this database.\n")
    assert document(restructure("status", "--output", "json", dsn=database))["jobs"] == []


@pytest.mark.parametrize(
    "words",
    [["status"], ["pause"], ["resume"], ["cutover"], ["abort", "--yes"], ["finalize", "--yes"]],
)
def test_a_job_that_does_not_exist_is_exit_2(
    connection: psycopg.Connection, database: str, words: list[str]
) -> None:
    done = restructure(words[0], "nosuch", *words[1:], dsn=database)
    assert done.returncode == 2
    assert "no job named 'nosuch'" in done.stderr
    assert "dbname=" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(
    connection: psycopg.Connection, database: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "restructure", "status"],
        env=environment(database),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""
