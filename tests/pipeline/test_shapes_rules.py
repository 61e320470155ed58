"""Filters, and constraints of the new table that rows of the old one break."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import NotNow, OperatorNeeded
from restructure.model.phase import Phase
from tests.pipeline.shapes import (
    ONE_TRY,
    Writers,
    ask_for_cutover,
    assert_transformed,
    one,
    plan,
    restructure,
    run,
    until_ready,
)
from tests.pipeline.tool import Tool

SOME = "id = (SELECT id FROM t ORDER BY random() LIMIT 1)"


def test_rows_that_move_into_and_out_of_the_filter(
    database: str, connection: psycopg.Connection
) -> None:
    """NULL in the condition leaves a row behind, as false does."""
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, state text, v int);
        INSERT INTO t SELECT n, (ARRAY['open', 'purged', NULL])[n % 3 + 1], n FROM generate_series(1, 900) n
        """,
    )
    where = "state <> 'purged' AND v % 10 <> 3"
    restructure(
        database,
        plan("t", alter=["ALTER id TYPE bigint"], where=where),
        f"UPDATE t SET state = (ARRAY['open', 'purged', NULL])[1 + floor(random() * 3)] WHERE {SOME}",
        f"UPDATE t SET v = v + 1 WHERE {SOME}",
        f"UPDATE t SET id = id + 10000, state = 'open' WHERE {SOME} AND id < 10000",
        f"DELETE FROM t WHERE {SOME}",
    )
    assert_transformed(connection, "t", "id, state, v", where=where)


def test_a_not_null_target_and_rows_that_have_null(
    database: str, connection: psycopg.Connection
) -> None:
    """Such rows are quarantined, by copy and by stream; the cutover waits until they are corrected."""
    refused_until_corrected(
        database,
        connection,
        alter="ALTER v SET NOT NULL",
        break_rows="UPDATE t SET v = NULL WHERE id % 50 = {}",
        correct="UPDATE t SET v = 1 WHERE v IS NULL",
        named="NotNullViolation (v)",
    )


def test_a_new_check_that_rows_break(database: str, connection: psycopg.Connection) -> None:
    refused_until_corrected(
        database,
        connection,
        alter="ADD CONSTRAINT v_is_positive CHECK (v > 0)",
        break_rows="UPDATE t SET v = -id WHERE id % 50 = {}",
        correct="UPDATE t SET v = 1 WHERE v < 0",
        named="CheckViolation (v_is_positive)",
    )


def test_values_that_do_not_fit_the_new_type(database: str, connection: psycopg.Connection) -> None:
    """Length and range are checked as for a client's own INSERT, never cut."""
    refused_until_corrected(
        database,
        connection,
        alter="ALTER name TYPE varchar(6)",
        break_rows="UPDATE t SET name = 'name too long' WHERE id % 50 = {}",
        correct="UPDATE t SET name = 'short' WHERE length(name) > 6",
        named="StringDataRightTruncation",
    )


def refused_until_corrected(
    database: str,
    connection: psycopg.Connection,
    *,
    alter: str,
    break_rows: str,
    correct: str,
    named: str,
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, v int, name text);
        INSERT INTO t SELECT n, n, 'n' || n FROM generate_series(1, 500) n
        """,
    )
    run(connection, break_rows.format(1))
    changes = [alter, "ALTER id TYPE bigint"]
    once = plan("t", alter=changes, cutover=ONE_TRY)
    update = f"UPDATE t SET id = id + 1000 WHERE {SOME} AND id < 1000"
    with Writers(database, update) as writers, until_ready(database, once) as tool:
        tool.wait_for_phase(Phase.READY)
        run(connection, break_rows.format(2))
        writers.wait_for(10)
        ask_for_cutover(connection)
        with pytest.raises(NotNow, match="refused by the new shape") as refusal:
            tool.finish()
        assert named in refusal.value.message
    reasons = one(
        connection, "SELECT string_agg(DISTINCT reason, ', ') FROM restructure.quarantine_shape"
    )
    assert named in str(reasons)
    run(connection, correct)
    with Tool(database, plan("t", alter=changes)) as tool:
        assert tool.finish().phase == Phase.LIVE
    assert_transformed(connection, "t", "id, v, name")


def test_a_row_that_is_corrected_at_once_does_not_stay_in_quarantine(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT n, n FROM generate_series(1, 300) n",
    )
    text = plan("t", alter=["ADD CONSTRAINT v_is_positive CHECK (v > 0)", "ALTER id TYPE bigint"])
    with Tool(database, text, hold="ready entered") as tool:
        tool.held()
        for _ in range(5):
            run(connection, "UPDATE t SET v = -1 WHERE id = 7")
            run(connection, "UPDATE t SET v = 1 WHERE id = 7")
        run(connection, "UPDATE t SET v = -1 WHERE id = 8")
        run(connection, "DELETE FROM t WHERE id = 8")
        tool.finish()
    assert_transformed(connection, "t", "id, v")


@pytest.mark.parametrize(
    "constraint", ["UNIQUE (code)", "EXCLUDE USING gist (box(point(v, v), point(v, v)) WITH &&)"]
)
def test_a_new_unique_constraint_that_rows_break(
    database: str, connection: psycopg.Connection, constraint: str
) -> None:
    """A person is asked, by the constraint's name; corrected rows let the same job go on."""
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, code text, v int);
        INSERT INTO t SELECT n, 'c' || n, n FROM generate_series(1, 500) n;
        UPDATE t SET code = 'c1', v = 1 WHERE id IN (2, 3)
        """,
    )
    text = plan("t", alter=["ALTER id TYPE bigint", f"ADD CONSTRAINT only_one {constraint}"])
    with Writers(
        database, f"UPDATE t SET id = id + 1000 WHERE {SOME} AND id > 10 AND id < 1000"
    ) as writers:
        with Tool(database, text) as tool:
            with pytest.raises(OperatorNeeded, match="only_one") as refusal:
                tool.finish()
            assert refusal.value.exit_code == 6
        with Tool(database, text) as tool, pytest.raises(OperatorNeeded, match="only_one"):
            tool.finish()
        run(connection, "UPDATE t SET code = 'c' || id, v = id WHERE id IN (2, 3)")
        with Tool(database, text, hold="ready entered") as tool:
            tool.held()
            writers.wait_for(10)
            writers.stop()
            assert tool.finish().phase == Phase.LIVE
    assert_transformed(connection, "t", "id, code, v")
    with pytest.raises(psycopg.errors.IntegrityError):
        run(connection, "UPDATE t SET code = 'c1', v = 1 WHERE id IN (2, 3)")


def test_unique_values_that_break_the_new_constraint_only_later(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, code text);"
        " INSERT INTO t SELECT n, 'c' || n FROM generate_series(1, 300) n",
    )
    changes = ["ALTER id TYPE bigint", "ADD CONSTRAINT only_one UNIQUE (code)"]
    with until_ready(database, plan("t", alter=changes, cutover=ONE_TRY)) as tool:
        tool.wait_for_phase(Phase.READY)
        run(connection, "UPDATE t SET code = 'c1' WHERE id = 2")
        refused = "SELECT count(*) FROM restructure.quarantine_shape"
        tool.until(lambda: one(connection, refused) == 1)
        ask_for_cutover(connection)
        with pytest.raises(NotNow, match="only_one"):
            tool.finish()
    run(connection, "UPDATE t SET code = 'c2' WHERE id = 2")
    with Tool(database, plan("t", alter=changes)) as tool:
        tool.finish()
    assert_transformed(connection, "t", "id, code")
