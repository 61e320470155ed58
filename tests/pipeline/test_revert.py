"""Revert: what was written to the new table since the cutover is in the old one, or is told by key."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import psycopg
import pytest

from restructure.catalog import job as jobs
from restructure.catalog.job import Job
from restructure.cli.status import standing_lines
from restructure.errors import LossyRevert, VerifyMismatch, WayBackLost
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.phases.standing import Standing, read_standing
from restructure.plan.load import parse_plan
from restructure.postgres.connect import connect
from restructure.runner import Runner
from tests.pipeline.moments import eventually, value
from tests.pipeline.tool import Tool, leftovers

CREATE = """
CREATE TABLE parent (id integer PRIMARY KEY);
INSERT INTO parent VALUES (1), (2);
CREATE TABLE t (
    id     integer PRIMARY KEY,
    code   varchar(5) UNIQUE,
    note   text NOT NULL,
    price  numeric(10, 3),
    legacy text,
    parent integer REFERENCES parent
);
INSERT INTO t SELECT n, 'c' || n, 'note', n + 0.005, 'old' || n, 1 FROM generate_series(1, 20) n;
"""

PLAN = """
name: t
table: t
alter:
  - ALTER id TYPE bigint
  - ALTER code TYPE text
  - ALTER note DROP NOT NULL
  - DROP CONSTRAINT t_code_key
  - ALTER price TYPE numeric(10, 2)
  - DROP COLUMN legacy
  - ADD COLUMN token uuid DEFAULT gen_random_uuid()
cutover: {attempts: 5}
"""

Session = psycopg.Connection


@pytest.fixture
def live(database: str, connection: Session) -> Session:
    """A job that has cut over, and that nobody attends."""
    connection.execute(CREATE)
    assert run(database).phase == Phase.LIVE
    return connection


def run(dsn: str, plan: str = PLAN, **wish: bool) -> Job:
    return runner(dsn).run(parse_plan(plan), Wish(**{"cutover": True, **wish}))


def attend(dsn: str, **wish: bool) -> Job:
    return runner(dsn).attend("t", Wish(**wish))


def runner(dsn: str) -> Runner:
    return Runner(dsn, lambda *_: None, lambda *_: None)


def standing(dsn: str) -> Standing:
    with connect(dsn) as session:
        return read_standing(session, dsn, jobs.load(session, "t"))


def rows(session: Session, query: str) -> list[tuple[Any, ...]]:
    return session.execute(query).fetchall()


def test_what_was_written_since_is_in_the_old_table(database: str, live: Session) -> None:
    live.execute("UPDATE t SET note = 'changed', price = 7.5 WHERE id = 1")
    live.execute("DELETE FROM t WHERE id = 2")
    live.execute("UPDATE t SET id = 30 WHERE id = 3")
    live.execute("INSERT INTO t (id, code, note) VALUES (40, 'c40', 'new')")

    assert attend(database, revert=True).phase == Phase.REVERTED

    assert rows(live, "SELECT id, note, price::float, legacy FROM t WHERE id IN (1, 2, 3, 30, 40)"
                " ORDER BY id") == [
        (1, "changed", 7.5, "old1"),
        (30, "note", 3.01, None),
        (40, "new", None, None),
    ]  # fmt: skip
    assert value(live, "SELECT count(*) FROM t") == 20
    assert value(live, "SELECT pg_typeof(id)::text FROM t LIMIT 1") == "integer"


def test_rows_that_nobody_has_written_are_as_they_were(database: str, connection: Session) -> None:
    """A way back that rounds must not round what only we have written to the new table."""
    connection.execute(CREATE)
    with Tool(database, PLAN, Wish(cutover=True), hold="cutover entered") as tool:
        tool.held()
        connection.execute("UPDATE t SET note = 'late' WHERE id < 10")
        tool.finish()
    before = "SELECT id, price, legacy FROM {} ORDER BY id"
    retired = rows(connection, before.format("restructure_t_retired.t"))
    assert retired[0][1:] == (Decimal("1.005"), "old1")

    attend(database, revert=True)

    assert rows(connection, before.format("t")) == retired


UNFIT = {
    5_000_000_000: "INSERT INTO t (id, code, note) VALUES (5000000000, 'a', 'x')",
    31: "INSERT INTO t (id, code, note) VALUES (31, 'too long', 'x')",
    5: "UPDATE t SET note = NULL WHERE id = 5",
    33: "INSERT INTO t (id, code, note) VALUES (33, 'c6', 'x')",
}
FIT = (
    "DELETE FROM t WHERE id = 5000000000",
    "UPDATE t SET code = 'short' WHERE id = 31",
    "UPDATE t SET note = 'again' WHERE id = 5",
    "UPDATE t SET code = 'c33' WHERE id = 33",
)


def test_rows_that_the_old_shape_cannot_hold_are_told_by_key_and_stop_nothing(
    database: str, live: Session
) -> None:
    for statement in UNFIT.values():
        live.execute(statement)
    unread = standing(database)
    assert unread.way_back is not None and not unread.way_back.certain
    assert "nobody reads now" in "".join(standing_lines(unread))
    written = value(live, "SELECT pg_current_wal_lsn()::text")
    with Tool(database, PLAN, Wish(stay=True)) as tool:
        tool.until(lambda: standing(database).quarantined_keys >= 3)
        eventually(
            lambda: bool(
                value(
                    live,
                    "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots"
                    " WHERE slot_name = 'restructure_t_reverse'",
                    written,
                )
            ),
            "the server may forget what cannot be applied",
        )
        found = standing(database)
        assert found.way_back is not None and found.way_back.open
        eventually(lambda: getattr(standing(database).way_back, "certain", False), "all is applied")
        with pytest.raises(LossyRevert) as refused:
            jobs.store(live, found_id(live), request="revert")
            tool.finish()
    assert "4 rows" in str(refused.value)
    lost = {int(entry.key[0] or 0) for entry in standing(database).quarantined}
    assert lost in (set(UNFIT), {*set(UNFIT) - {33}, 6})  # either of the two with one code

    for statement in FIT:
        live.execute(statement)
    assert attend(database, revert=True).phase == Phase.REVERTED
    assert rows(
        live, "SELECT id, code, note, legacy FROM t WHERE id IN (5, 6, 31, 33) ORDER BY 1"
    ) == [
        (5, "c5", "again", "old5"),
        (6, "c6", "note", "old6"),
        (31, "short", "x", None),
        (33, "c33", "x", None),
    ]


def found_id(session: Session) -> int:
    return int(str(value(session, "SELECT id FROM restructure.job WHERE name = 't'")))


def test_a_loss_that_is_accepted_is_one_in_both_tables(database: str, live: Session) -> None:
    for statement in UNFIT.values():
        live.execute(statement)
    with pytest.raises(LossyRevert):
        attend(database, revert=True)
    assert live.execute("SELECT phase FROM restructure.job").fetchone() == ("live",)

    assert attend(database, revert=True, accept_loss=True).phase == Phase.REVERTED

    old = rows(live, "SELECT id, code, note FROM t ORDER BY id")
    assert len(old) == 19
    assert attend(database, cutover=True).phase == Phase.LIVE
    assert rows(live, "SELECT id, code, note FROM t ORDER BY id") == old


def test_columns_of_one_table_alone_keep_their_values(database: str, live: Session) -> None:
    """Through updates, exchanged unique values, quarantine, revert and cutover."""
    tokens = dict(rows(live, "SELECT id, token FROM t"))
    with live.transaction():
        live.execute("UPDATE t SET code = NULL WHERE id = 1")
        live.execute("UPDATE t SET code = 'c1' WHERE id = 2")
        live.execute("UPDATE t SET code = 'c2' WHERE id = 1")
    live.execute("UPDATE t SET code = 'too long' WHERE id = 3")
    with pytest.raises(LossyRevert):
        attend(database, revert=True)
    live.execute("UPDATE t SET code = 'c3' WHERE id = 3")

    attend(database, revert=True)

    assert rows(live, "SELECT id, code, legacy FROM t WHERE id < 4 ORDER BY id") == [
        (1, "c2", "old1"),
        (2, "c1", "old2"),
        (3, "c3", "old3"),
    ]
    live.execute("UPDATE t SET note = 'reverted' WHERE id < 10")
    live.execute("INSERT INTO t (id, code, note) VALUES (50, 'c50', 'reverted')")

    attend(database, cutover=True)

    after = dict(rows(live, "SELECT id, token FROM t"))
    assert after.pop(50) is not None
    assert after == tokens
    assert value(live, "SELECT count(*) FROM t WHERE note = 'reverted'") == 10


def test_the_retired_table_hurts_nobody(database: str, connection: Session) -> None:
    connection.execute(CREATE)
    connection.execute(
        "CREATE TABLE fired (n integer); CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO fired VALUES (1); RETURN NULL; END $$;"
        " CREATE TRIGGER fire AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION fire();"
        " ALTER TABLE t ENABLE ALWAYS TRIGGER fire;"
        " CREATE RULE spy AS ON UPDATE TO t DO ALSO INSERT INTO fired VALUES (100);"
    )
    run(database)
    connection.execute("UPDATE t SET parent = 2")
    connection.execute("DELETE FROM parent WHERE id = 1")
    connection.execute("INSERT INTO parent VALUES (1)")
    connection.execute("UPDATE t SET note = 'x' WHERE id = 1")
    fired = value(connection, "SELECT sum(n) FROM fired")

    attend(database, revert=True)

    assert value(connection, "SELECT sum(n) FROM fired") == fired
    assert value(connection, "SELECT count(*) FROM t WHERE parent = 2") == 20
    connection.execute("UPDATE t SET note = 'y' WHERE id = 1")
    assert value(connection, "SELECT sum(n) FROM fired") == 101 + int(str(fired))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("DELETE FROM parent WHERE id = 2")


def test_only_we_write_to_what_has_retired(database: str, live: Session) -> None:
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        live.execute("UPDATE restructure_t_retired.t SET note = 'lost'")
    attend(database, revert=True)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        live.execute("UPDATE restructure_t.t SET note = 'lost'")
    live.execute("UPDATE t SET note = 'not lost'")


def test_a_truncation_of_the_new_table_goes_back_too(database: str, live: Session) -> None:
    live.execute("UPDATE t SET note = NULL WHERE id = 5")
    with pytest.raises(LossyRevert):
        attend(database, revert=True)
    live.execute("TRUNCATE t")
    live.execute("INSERT INTO t (id, code, note) VALUES (1, 'c1', 'after')")

    attend(database, revert=True)

    assert rows(live, "SELECT id, code, note, legacy FROM t") == [(1, "c1", "after", None)]


def test_a_truncation_spares_what_the_plan_left_behind(database: str, connection: Session) -> None:
    connection.execute(CREATE)
    run(database, PLAN + "where: id > 5 AND note LIKE '%e'\n")
    connection.execute("TRUNCATE t")

    attend(database, revert=True)

    assert rows(connection, "SELECT min(id), max(id), count(*) FROM t") == [(1, 5, 5)]


PARTITIONED = """
name: t
table: t
create: |
  CREATE TABLE t (id integer NOT NULL, at date NOT NULL, body text, PRIMARY KEY (id, at))
    PARTITION BY RANGE (at);
  CREATE TABLE t_old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
  CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
"""


def test_a_longer_key_goes_back_to_the_shorter_one(database: str, connection: Session) -> None:
    connection.execute("CREATE TABLE t (id integer PRIMARY KEY, at date NOT NULL, body text)")
    connection.execute(
        "INSERT INTO t SELECT n, '2025-12-01'::date + n, 'x' FROM generate_series(1, 60) n"
    )
    run(database, PARTITIONED)
    connection.execute("UPDATE t SET at = '2026-05-05' WHERE id = 1")
    connection.execute("UPDATE t SET body = 'y' WHERE id = 2")
    connection.execute("DELETE FROM t WHERE id = 3")
    connection.execute("INSERT INTO t VALUES (4, '2027-01-01', 'a second 4')")
    with pytest.raises(LossyRevert, match="UniqueViolation"):
        attend(database, revert=True)
    connection.execute("DELETE FROM t WHERE body = 'a second 4'")
    connection.execute("TRUNCATE t_new")
    expected = rows(connection, "SELECT id, at, body FROM t ORDER BY id")

    attend(database, revert=True)

    assert rows(connection, "SELECT id, at, body FROM t ORDER BY id") == expected
    assert value(connection, "SELECT relkind::text FROM pg_class WHERE oid = 't'::regclass") == "r"


def test_partitions_come_back_to_where_they_were(database: str, connection: Session) -> None:
    connection.execute("CREATE SCHEMA archive")
    connection.execute(
        "CREATE TABLE t (id integer, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        " CREATE TABLE archive.t_old PARTITION OF t FOR VALUES FROM (MINVALUE) TO ('2026-01-01');"
        " CREATE TABLE t_new PARTITION OF t FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);"
        " INSERT INTO t SELECT n, '2025-12-20'::date + n FROM generate_series(1, 30) n"
    )
    run(
        database,
        "name: t\ntable: t\ncreate: CREATE TABLE t (id integer, at date, PRIMARY KEY (id, at))\n",
    )
    connection.execute("DELETE FROM t WHERE id = 1")
    connection.execute("INSERT INTO t VALUES (40, '2024-04-04')")

    attend(database, revert=True)

    assert value(connection, "SELECT count(*) FROM archive.t_old") == 11
    assert value(connection, "SELECT count(*) FROM t_new") == 19


def test_a_slot_that_is_late_is_there_for_the_next_try(database: str, connection: Session) -> None:
    """Making a slot waits for every transaction with an id, in whatever table."""
    connection.execute(CREATE)
    connection.execute("CREATE TABLE elsewhere (n integer)")
    plan = PLAN + "stream: {kind: pgoutput, slot_timeout: 1s}\n"
    with (
        psycopg.connect(database) as busy,
        Tool(database, plan, Wish(cutover=True), hold="cutover entered") as tool,
    ):
        tool.held()
        busy.execute("INSERT INTO elsewhere VALUES (1)")
        tool.release()
        tool.not_yet("slot")
        busy.commit()
        assert tool.finish().phase == Phase.LIVE
    connection.execute("UPDATE t SET note = 'followed'")

    attend(database, revert=True)

    assert value(connection, "SELECT count(*) FROM t WHERE note = 'followed'") == 20


def gone(dsn: str) -> bool:
    """Whether nothing of the way back is left that could hurt production."""
    return not [thing for thing in leftovers(dsn) if "reverse" in thing]


def test_the_way_back_ends_with_its_time(database: str, connection: Session) -> None:
    connection.execute(CREATE)
    job = run(database, PLAN.replace("attempts: 5", "revert_window: 1ms"), stay=True)
    assert job.phase == Phase.LIVE and "revert_window" in str(job.given_up)
    assert gone(database)
    connection.execute("UPDATE t SET note = 'production goes on'")
    assert attend(database, finalize=True).phase == Phase.FINALIZED


def test_a_plan_may_want_no_way_back(database: str, connection: Session) -> None:
    connection.execute(CREATE)
    job = run(database, PLAN.replace("attempts: 5", "revert_window: 0s"), stay=True)
    assert job.phase == Phase.LIVE and gone(database)
    way_back = standing(database).way_back
    assert way_back is not None and not way_back.open


def test_the_way_back_ends_where_it_would_fill_the_disk(database: str, connection: Session) -> None:
    connection.execute(CREATE)
    plan = PLAN + "throttle: {wal_retained: 1B, wal_limit: 16MB}\n"
    run(database, PLAN + "throttle: {wal_retained: 16MB}\n")
    connection.execute(
        "CREATE TABLE ballast AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 30000) n"
    )
    with Tool(database, plan, Wish(stay=True)) as tool, pytest.raises(WayBackLost):
        tool.finish()
    assert gone(database)
    assert "WAL" in str(standing(database).way_back)
    connection.execute("UPDATE t SET note = 'production goes on'")


def test_other_columns_end_the_way_back_and_an_index_does_not(database: str, live: Session) -> None:
    live.execute("CREATE INDEX later ON t (note)")
    with Tool(database, PLAN, Wish(stay=True)) as tool:
        tool.wait_for("keeping in step")
        live.execute("ALTER TABLE t ALTER note SET DEFAULT '-'")
        live.execute("ALTER TABLE t ADD COLUMN more integer")
        with pytest.raises(WayBackLost, match="column more was added"):
            tool.finish()
    assert gone(database)
    live.execute("UPDATE t SET more = 1")


def test_an_index_that_only_the_new_table_has_is_told_when_going_back(
    database: str, live: Session
) -> None:
    live.execute("CREATE INDEX later ON t (note)")
    events: list[tuple[str, dict[str, Any]]] = []
    Runner(
        database, lambda _, event, detail: events.append((event, detail)), lambda *_: None
    ).attend("t", Wish(revert=True))
    told = [detail["message"] for event, detail in events if event == "warning"]
    assert [message for message in told if "index later was added" in message]


@pytest.mark.parametrize("request_, phase", [("revert", "reverted"), ("finalize", "finalized")])
def test_a_process_that_stays_does_what_is_asked_for(
    database: str, connection: Session, request_: str, phase: str
) -> None:
    connection.execute(CREATE)
    with Tool(database, PLAN, Wish(cutover=True, stay=True)) as tool:
        tool.wait_for("keeping in step")
        connection.execute("UPDATE t SET note = 'seen' WHERE id = 1")
        jobs.store(connection, found_id(connection), request=request_)
        eventually(
            lambda: connection.execute("SELECT phase FROM restructure.job").fetchone() == (phase,),
            f"the job is {phase}",
        )
        assert value(connection, "SELECT note FROM t WHERE id = 1") == "seen"


def test_after_a_revert_what_both_tables_hold_can_be_compared(database: str, live: Session) -> None:
    live.execute("UPDATE t SET token = gen_random_uuid(), note = 'mine' WHERE id = 1")
    attend(database, revert=True)
    attend(database, verify=True)
    live.execute("SET restructure.reverse = 'on'")
    live.execute("UPDATE restructure_t.t SET note = 'damage' WHERE id = 2")
    with pytest.raises(VerifyMismatch, match="1 key"):
        attend(database, verify=True)
    with pytest.raises(VerifyMismatch):
        attend(database, cutover=True)
    attend(database, verify=True, repair=True)
    assert attend(database, cutover=True).phase == Phase.LIVE


def test_after_a_revert_everything_can_be_removed(database: str, live: Session) -> None:
    attend(database, revert=True)
    runner(database).abort("t")
    assert leftovers(database) == []
    assert value(live, "SELECT pg_typeof(id)::text FROM t LIMIT 1") == "integer"
    live.execute("UPDATE t SET note = 'as ever'")
