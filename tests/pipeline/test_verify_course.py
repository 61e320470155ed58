"""The course of a verification: interrupted, held, beside truncations and refused rows, and what it allows."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from restructure.catalog import job as jobs
from restructure.catalog import verified
from restructure.errors import VerifyMismatch
from restructure.model.wish import Wish
from restructure.phases import reverify
from tests.pipeline.moments import Gate, eventually, value
from tests.pipeline.shapes import ask_for_cutover, one, plan, run
from tests.pipeline.test_kills import command, finished
from tests.pipeline.tool import Tool
from tests.pipeline.verifying import SHADOW, Session, attend, known, repair, staying, verify

ROWS = 20_000
WIDER = ["ALTER id TYPE bigint"]
SMALL = {"chunk_target": "1ms"}


@pytest.fixture
def table(connection: Session) -> Session:
    """Table ``t`` in some forty units."""
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, v text);"
        f" INSERT INTO t SELECT n, repeat('v', 200) FROM generate_series(1, {ROWS}) n",
    )
    return connection


def ranges(session: Session) -> list[verified.VerifiedRange]:
    job = jobs.all_jobs(session)[0]
    return verified.ranges(session, job.id, job.names)


def events(session: Session) -> list[str]:
    rows = session.execute("SELECT event FROM restructure.journal ORDER BY id").fetchall()
    return [event for (event,) in rows]


def test_a_verification_that_was_killed_goes_on_where_it_was(
    database: str, table: Session, tmp_path: Path
) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(plan("t", alter=WIDER, verify={**SMALL, "workers": 1}))
    code, _ = finished(command(database, "run", str(file), failpoint="verify.range=kill"))
    assert code == -9
    assert known(table).state == "running"
    assert len(ranges(table)) == 1
    run(table, "ALTER TABLE restructure.verified ADD first_read timestamptz DEFAULT now()")
    code, stderr = finished(command(database, "run", str(file)))
    assert code == 0, stderr
    assert known(table).passed
    assert events(table).count("verifying") == 1
    rows = "SELECT sum(rows) FROM restructure.verified"
    assert one(table, rows) == ROWS
    assert one(table, "SELECT count(*) FROM restructure.verified WHERE read_at > first_read") == (
        one(table, "SELECT count(*) - 1 FROM restructure.verified")
    ), "what was compared is not compared again"


def test_a_pause_ends_a_comparison_at_once(database: str, table: Session) -> None:
    """It stands in a client's lock for as long as the client likes."""
    comparing = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'restructure shape verify%'"
        " AND wait_event_type = 'Lock'"
    )
    with staying(database, plan("t", alter=WIDER, verify={"workers": 2})) as tool:
        tool.wait_for("verified")
        with psycopg.connect(database) as client:
            with Gate("verify.begun") as gate:
                table.execute("UPDATE restructure.job SET request = 'verify'")
                tool.until(lambda: gate.reached)
                client.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
            eventually(lambda: value(table, comparing) != 0, "it waits for the lock")
            table.execute("UPDATE restructure.job SET paused = true")
            eventually(lambda: value(table, comparing) == 0, "it waits no more")
            client.rollback()
        assert known(table).state == "running"
        table.execute("UPDATE restructure.job SET paused = false")
        tool.wait_for("verified", 2)


@pytest.mark.parametrize("rows", [0, 700])
def test_a_truncation_while_it_reads_is_no_damage(database: str, table: Session, rows: int) -> None:
    with staying(database, plan("t", alter=WIDER, verify=SMALL)) as tool:
        tool.wait_for("verified")
        with Gate("verify.range") as gate:
            table.execute("UPDATE restructure.job SET request = 'verify'")
            tool.until(lambda: gate.reached)
            run(
                table,
                f"BEGIN; TRUNCATE t; INSERT INTO t SELECT n, 'w' FROM generate_series(1, {rows}) n; COMMIT",
            )
        tool.wait_for("verified", 2)
        assert verify(tool, table).passed
        assert one(table, f"SELECT count(*) FROM {SHADOW}") == rows


def test_a_truncation_in_the_spool_postpones_every_judgement(database: str, table: Session) -> None:
    """The source is empty and the shadow is not, for as long as the truncation is not applied."""
    with staying(database, plan("t", alter=WIDER, verify=SMALL)) as tool:
        tool.wait_for("verified")
        with Gate("verify.settling") as gate:
            table.execute("UPDATE restructure.job SET request = 'verify'")
            tool.until(lambda: gate.reached)
            run(table, "TRUNCATE t")
            run(table, f"DELETE FROM {SHADOW} WHERE id = 7")  # would differ, were it not for that
        tool.wait_for("verified", 2)


def test_refused_rows_are_no_damage_and_are_counted(database: str, table: Session) -> None:
    """One that a constraint refuses, and one that the transform itself fails on."""
    sections = {"alter": [*WIDER, "ADD n int CHECK (n <> 5)"], "columns": {"n": "100 / (id - 7)"}}
    with staying(database, plan("t", **sections, verify=SMALL)) as tool:
        assert tool.wait_for("verified") == {"rows": ROWS - 5, "quarantined": 5}
        run(table, "INSERT INTO t VALUES (-13, 'x')")
        assert verify(tool, table).passed
        run(table, f"DELETE FROM {SHADOW} WHERE id = 8")
        assert verify(tool, table).keys == [["8"]]


def test_what_changes_is_compared_again_and_what_does_not_is_left_alone(
    database: str, table: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reverify, "AGAIN_AFTER", 0.0)
    with staying(database, plan("t", alter=WIDER, verify={**SMALL, "workers": 1})) as tool:
        tool.wait_for("verified")
        changed = "SELECT count(*) FROM restructure.verified WHERE changed"
        eventually(lambda: one(table, changed) == 0, "nothing is left to compare")
        run(table, "CREATE TABLE before AS SELECT * FROM restructure.verified")
        run(table, "UPDATE t SET v = 'new' WHERE id = 100")
        again = (
            "SELECT array_agg(v.first) FROM restructure.verified v JOIN before b USING (first)"
            " WHERE v.equal_at > b.equal_at"
        )
        eventually(lambda: one(table, again) is not None, "something is compared again")
        eventually(lambda: one(table, changed) == 0, "all that has changed is")
        assert one(table, again) == [0], "the first range, and no other"
        # damage in another range is not looked for, in this one it is
        run(table, f"UPDATE {SHADOW} SET v = 'bad' WHERE id = 101")
        run(table, "UPDATE t SET v = 'newer' WHERE id = 100")
        tool.wait_for("verify failed")
        assert known(table).keys == [["101"]]
        ask_for_cutover(table)
        tool.wait_for("cutover refused")
        assert repair(tool, table).passed
        ask_for_cutover(table)
        tool.wait_for("done")


def test_a_cutover_wants_a_verification_that_has_passed(database: str, table: Session) -> None:
    text = plan("t", alter=WIDER)
    with Tool(database, text, Wish()) as tool:
        tool.finish()
    assert known(table).passed
    run(table, f"DELETE FROM {SHADOW} WHERE id = 7")
    with pytest.raises(VerifyMismatch, match=r"\(7\)") as refused:
        attend(database, "shape", Wish(verify=True))
    assert refused.value.exit_code == 4
    with pytest.raises(VerifyMismatch):
        attend(database, "shape", Wish(cutover=True))
    with pytest.raises(VerifyMismatch), Tool(database, text, Wish(cutover=True)) as tool:
        tool.finish()
    assert value(table, "SELECT phase FROM restructure.job") == "ready"
    attend(database, "shape", Wish(verify=True, repair=True))
    attend(database, "shape", Wish(cutover=True))
    assert value(table, "SELECT phase FROM restructure.job") == "live"


def test_off_asks_for_none_and_a_sample_for_some(database: str, table: Session) -> None:
    off = plan("t", alter=WIDER, verify={"mode": "off"})
    with Tool(database, off, Wish()) as tool:
        tool.finish()
    assert "verifying" not in tool.happened
    some = plan("t", alter=WIDER, verify={"mode": "sample", "share": 0.2})
    with Tool(database, some, Wish()) as tool:
        tool.finish()
    rows = tool.wait_for("verified")["rows"]
    assert 0 < rows < ROWS
    assert known(table).mode == "sample"
    with Tool(database, some, Wish(cutover=True)) as tool:
        tool.finish()
    receipt = value(table, "SELECT document -> 'verification' FROM restructure.receipt")
    assert isinstance(receipt, dict)
    assert sum(each["rows"] for each in receipt["ranges"]) == rows


def test_a_row_whose_commit_is_not_visible_leaves_it_undecided(
    database: str, table: Session
) -> None:
    """A truncation that hangs in its commit: nothing can be said of any row."""
    with staying(database, plan("t", alter=WIDER)) as tool:
        tool.wait_for("verified")
        # as if it were decoded and not yet visible
        with psycopg.connect(database) as client:
            client.execute("SELECT pg_current_xact_id()")
            table.execute(
                "INSERT INTO restructure.spool_shape (xid, truncated)"
                " SELECT %s::text::xid8, 't'::regclass::oid",
                [value(client, "SELECT pg_current_xact_id()::text")],
            )
            run(table, f"DELETE FROM {SHADOW} WHERE id = 7")
            assert verify(tool, table).state == "undecided"
            ask_for_cutover(table)
            tool.wait_for("cutover refused")
            assert one(table, "SELECT error ->> 'kind' FROM restructure.job") == "NotNow"
