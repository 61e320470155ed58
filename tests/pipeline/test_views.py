"""Views under load: clients that read and write through them meet no error in the swap."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from restructure.errors import OperatorNeeded
from restructure.model.phase import Phase
from tests.pipeline.moments import Gate
from tests.pipeline.shapes import RETIRED, Writers, one, plan, run
from tests.pipeline.tool import Tool
from tests.workload import Workload

THROUGH = """
CREATE SCHEMA report;
CREATE TABLE base (id int PRIMARY KEY, code text UNIQUE, amount int NOT NULL, body text, flag boolean,
    size bigint GENERATED ALWAYS AS (length(body)) STORED);
INSERT INTO base SELECT n, 'c' || n, n, repeat('x', 40), true FROM generate_series(1, {rows}) n;
CREATE VIEW items AS SELECT * FROM base WHERE amount IS NOT NULL WITH CHECK OPTION;
CREATE VIEW report.totals WITH (security_barrier) AS SELECT count(*) AS n, sum(amount) AS s FROM items;
CREATE MATERIALIZED VIEW report.kept AS SELECT id, code FROM items;
CREATE UNIQUE INDEX kept_id ON report.kept (id);
CREATE FUNCTION report.total() RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT s FROM report.totals; END;
CREATE FUNCTION report.title(base) RETURNS text LANGUAGE sql AS 'SELECT $1.code';
CREATE VIEW report.titles AS SELECT base.id, report.title(base) FROM base;
ANALYZE base;
"""
WIDER = plan(
    "base",
    alter=["ALTER COLUMN id TYPE bigint"],
    cutover={"lock_budget": "5s", "attempts": 100, "lock_timeout": "1s"},
)
READS = (
    "SELECT n, s FROM report.totals",
    "SELECT count(*) FROM items; SELECT count(*) FROM base",
    "SELECT report.total()",
    "SELECT count(*) FROM report.kept; SELECT max(id) FROM items",
    "SELECT max(title) FROM report.titles; SELECT id FROM base LIMIT 1",
)
BOUND = f"""
SELECT count(*) FROM pg_depend d LEFT JOIN pg_rewrite w ON w.oid = d.objid
LEFT JOIN pg_class v ON v.oid = w.ev_class
WHERE d.refobjid = '{RETIRED}.base'::regclass AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
  AND v.relnamespace IS DISTINCT FROM '{RETIRED}'::regnamespace
"""


def type_of(session: psycopg.Connection, relation: str) -> object:
    return one(
        session,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        f" WHERE attrelid = '{relation}'::regclass AND attname = 'id'",
    )


def test_readers_and_writers_through_views_meet_no_error_and_lose_nothing(
    database: str, connection: psycopg.Connection
) -> None:
    rows = 4_000
    run(connection, THROUGH.format(rows=rows))
    with (
        Workload(database, rows, writers=2) as load,
        Writers(database, *READS) as readers,
        Tool(database, WIDER) as tool,
    ):
        assert tool.finish().phase == Phase.LIVE
        load.wait_for_writes(100)
        readers.wait_for(50)
        load.stop()
        readers.stop()
        load.assert_complete(connection)
    assert type_of(connection, "items") == type_of(connection, "report.kept") == "bigint"
    assert one(connection, BOUND) == 0
    assert one(connection, "SELECT s = report.total() FROM report.totals") is True
    assert one(connection, "SELECT relispopulated FROM pg_class WHERE relname = 'kept'") is True


def test_clients_that_lock_the_table_before_the_view_see_no_deadlock(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, THROUGH.format(rows=300))
    steps = [
        "UPDATE base SET amount = amount + 1 WHERE id = 1; UPDATE items SET amount = 1 WHERE id = 1",
        "UPDATE items SET amount = 3 WHERE id = 1; UPDATE base SET amount = 4 WHERE id = 1",
        "SELECT count(*) FROM base; SELECT * FROM report.totals",
        "SELECT * FROM report.kept LIMIT 1; UPDATE items SET amount = 5 WHERE id = 1",
    ]
    with Writers(database, *steps) as writers, Tool(database, WIDER) as tool:
        assert tool.finish().phase == Phase.LIVE
        writers.wait_for(30)
        writers.stop()
    assert type_of(connection, "items") == "bigint"


@pytest.mark.parametrize(
    "late",
    [
        "CREATE VIEW late AS SELECT id FROM base",
        "CREATE VIEW late AS SELECT id FROM report.titles",
        "CREATE OR REPLACE VIEW report.titles AS SELECT id, code AS title, 1 AS late FROM base;"
        " CREATE VIEW late AS SELECT id FROM report.titles WHERE late = 1",
    ],
)
def test_a_view_made_just_before_the_lock_is_carried_by_the_next_try(
    database: str, connection: psycopg.Connection, late: str
) -> None:
    run(connection, THROUGH.format(rows=300))
    with Gate("cutover.prepared") as gate, Tool(database, WIDER) as tool:
        tool.until(lambda: gate.reached)
        run(connection, late)
        gate.open()
        tool.not_yet("changed")
        assert tool.finish().phase == Phase.LIVE
    assert type_of(connection, "late") == "bigint"
    assert one(connection, "SELECT count(*) FROM late") == 300
    assert one(connection, BOUND) == 0


def test_views_made_dropped_and_changed_during_the_copy_are_as_they_are_then(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, THROUGH.format(rows=300))
    with Tool(database, WIDER, hold="copy entered") as tool:
        tool.held()
        run(
            connection,
            "CREATE VIEW late AS SELECT * FROM report.titles; DROP MATERIALIZED VIEW report.kept;"
            "GRANT SELECT ON report.totals TO PUBLIC; COMMENT ON VIEW items IS 'changed';"
            "CREATE FUNCTION of_late(late) RETURNS bigint LANGUAGE sql"
            " BEGIN ATOMIC SELECT ($1).id; END",
        )
        assert tool.finish().phase == Phase.LIVE
    assert type_of(connection, "late") == "bigint"
    assert one(connection, "SELECT of_late(late) FROM late WHERE id = 7") == 7
    assert one(connection, "SELECT to_regclass('report.kept')") is None
    assert one(connection, "SELECT obj_description('items'::regclass)") == "changed"
    assert one(
        connection, "SELECT relacl::text LIKE '%=r/%' FROM pg_class WHERE relname = 'totals'"
    )


def test_a_view_on_a_column_that_goes_made_during_the_copy_asks_a_person(
    database: str, connection: psycopg.Connection
) -> None:
    """Nothing has changed for clients, and without it the same job goes on."""
    run(
        connection,
        "CREATE TABLE base (id int PRIMARY KEY, gone int); INSERT INTO base VALUES (1, 1)",
    )
    text = plan("base", alter=["DROP COLUMN gone"])
    with Tool(database, text, hold="copy entered") as tool:
        tool.held()
        run(connection, "CREATE VIEW late AS SELECT gone FROM base")
        with pytest.raises(
            OperatorNeeded, match=r"view public\.late: column .*gone.* does not exist"
        ):
            tool.finish()
    assert one(connection, "SELECT gone FROM late") == 1
    run(connection, "DROP VIEW late")
    with Tool(database, text) as tool:
        assert tool.finish().phase == Phase.LIVE


def test_the_table_is_free_while_a_materialized_view_is_filled(
    database: str, connection: psycopg.Connection
) -> None:
    """Not even the weakest lock on it is held, behind which somebody's DDL would stop everybody."""
    run(
        connection,
        "CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base VALUES (1); CREATE TABLE gate (n int);"
        "CREATE FUNCTION wait() RETURNS bool LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM count(*) FROM public.gate; RETURN true; END';"
        "CREATE MATERIALIZED VIEW kept AS SELECT id FROM base WHERE wait()",
    )
    text = plan("base", alter=["ALTER COLUMN id TYPE bigint"])
    with (
        psycopg.connect(database) as holder,
        Gate("way back.stream") as made,  # a slot is not made while somebody holds such a lock
        Tool(database, text) as tool,
    ):
        tool.until(lambda: made.reached)
        holder.execute("LOCK TABLE gate")
        made.open()
        tool.until(lambda: _waits(connection))
        with connection.transaction(force_rollback=True):
            connection.execute("LOCK TABLE base IN ACCESS EXCLUSIVE MODE NOWAIT")
        holder.rollback()
        assert tool.finish().phase == Phase.LIVE
    assert type_of(connection, "kept") == "bigint"


def _waits(session: psycopg.Connection) -> bool:
    query = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'gate'::regclass"
    return session.execute(sql.SQL(query)).fetchone() == (True,)
