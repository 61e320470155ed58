"""The command line itself: help, usage errors, where words go, and what never shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from restructure.cli.commandline import options_first
from restructure.cli.secrecy import redact, without_dsn
from tests.cli.command import document, restructure

COMMANDS = {
    "abort": "no undo",
    "check": "Changes nothing",
    "cutover": "rolls back",
    "demo": "no database of yours",
    "doctor": "Changes nothing",
    "finalize": "no undo",
    "init": "Changes nothing",
    "pause": "Undo: resume",
    "plan": "Changes nothing",
    "receipt": "Changes nothing",
    "resume": "Undo: pause",
    "revert": "Undo: restructure cutover",
    "run": "Undo: restructure abort",
    "status": "Changes nothing",
    "verify": "changes nothing without --repair",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_says_what_it_changes_and_how_to_undo_it(command: str) -> None:
    done = restructure(command, "--help")
    assert done.returncode == 0
    assert COMMANDS[command] in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout


def test_the_help_lists_every_command() -> None:
    done = restructure("--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize(
    "words", [["bogus"], ["run", "--bogus"], ["run"], ["--output", "xml", "status"], []]
)
def test_a_wrong_command_line_is_exit_2(words: list[str]) -> None:
    done = restructure(*words)
    assert done.returncode == 2
    assert "--help" in done.stderr
    assert done.stdout == ""


def test_an_error_is_one_json_document_too() -> None:
    done = restructure("--output", "json", "run", "nosuch.yaml")
    assert done.returncode == 2
    found = document(done)
    assert found["schema_version"] == 1
    assert found["error"]["kind"] == "UsageError"
    assert found["error"]["exit_code"] == 2


def test_a_plan_error_names_file_line_and_column(tmp_path: Path) -> None:
    plan = tmp_path / "p.yaml"
    plan.write_text("name: x\ntable: t\nalter: []\nalterr: []\n")
    done = restructure("check", plan)
    assert done.returncode == 2
    assert f"{plan}:4:1: unknown key 'alterr'" in done.stderr
    place = document(restructure("check", plan, "--output", "json"))["error"]["place"]
    assert place == {"file": str(plan), "line": 4, "column": 1}


def test_finalize_after_a_run_needs_a_cutover(plan: Path) -> None:
    done = restructure("run", plan, "--then", "finalize")
    assert done.returncode == 2
    assert "--cutover" in done.stderr


def test_a_server_that_does_not_answer_is_exit_5_at_once_without_the_password() -> None:
    dsn = "postgresql://somebody:s3cr3t@127.0.0.1:1/nowhere"
    for words in (["--dsn", dsn, "status"], ["status", f"--dsn={dsn}", "--output", "json", "-v"]):
        done = restructure(*words)
        assert done.returncode == 5
        assert "port=1" in done.stderr
        assert "s3cr3t" not in done.stdout + done.stderr


def test_a_wrong_dsn_is_exit_2_without_the_password() -> None:
    done = restructure("--dsn", "postgresql://u:s3cr3t@h/d?nonsense=1", "-v", "status")
    assert done.returncode == 2
    assert "s3cr3t" not in done.stdout + done.stderr


def test_the_environment_gives_the_dsn_in_its_order() -> None:
    def tried(**variables: str) -> str:
        return restructure("status", **variables).stderr

    unreachable = "host=127.0.0.1 port=1 dbname={}"
    first, second = unreachable.format("first"), unreachable.format("second")
    assert "dbname=first" in tried(RESTRUCTURE_DSN=first, DATABASE_URL=second)
    assert "dbname=second" in tried(DATABASE_URL=second, PGDATABASE="third")
    assert "PG* variables" in tried(PGHOST="127.0.0.1", PGPORT="1")


def test_the_dsn_is_taken_out_wherever_it_stands() -> None:
    assert without_dsn(["--dsn", "a", "status", "--dsn=b", "x"]) == ("b", ["status", "x"])
    assert without_dsn(["status", "--", "--dsn", "a"]) == (None, ["status", "--", "--dsn", "a"])
    assert without_dsn(["status", "--dsn"]) == (None, ["status", "--dsn"])


def test_global_options_may_stand_behind_the_command() -> None:
    words = ["status", "orders", "--output", "json", "-v"]
    assert options_first(words) == ["--output", "json", "-v", "status", "orders"]
    assert options_first(["init", "--", "-v"]) == ["init", "--", "-v"]


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach postgresql://me:hush@db/x",
        "with password=hush host=db",
        "with password = 'hu\\'hush' host=db",
        "at postgresql://db/x?user=me&password=hush&sslmode=require",
    ],
)
def test_passwords_of_connection_strings_are_redacted(text: str) -> None:
    assert "hush" not in redact(text)
    assert "db" in redact(text)
