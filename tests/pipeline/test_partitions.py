"""Partitioned tables: as the old shape, as the new one, and what people do to partitions meanwhile."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import NotNow, SchemaDrift
from restructure.model.phase import Phase
from tests.pipeline.shapes import (
    ONE_TRY,
    Session,
    Writers,
    ask_for_cutover,
    assert_transformed,
    count,
    one,
    plan,
    restructure,
    run,
    until_ready,
)
from tests.pipeline.tool import Tool

TREES = {
    "range": """PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF t FOR VALUES FROM (MINVALUE) TO (300);
        CREATE TABLE high PARTITION OF t FOR VALUES FROM (300) TO (600);
        CREATE TABLE rest PARTITION OF t DEFAULT""",
    "list": """PARTITION BY LIST (kind);
        CREATE TABLE a PARTITION OF t FOR VALUES IN ('a', 'b');
        CREATE TABLE rest PARTITION OF t DEFAULT""",
    "hash": """PARTITION BY HASH (id, kind);
        CREATE TABLE h0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE h1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
    "two levels": """PARTITION BY LIST (kind);
        CREATE TABLE a PARTITION OF t FOR VALUES IN ('a') PARTITION BY RANGE (id);
        CREATE TABLE a_low PARTITION OF a FOR VALUES FROM (MINVALUE) TO (300);
        CREATE TABLE a_high PARTITION OF a FOR VALUES FROM (300) TO (MAXVALUE);
        CREATE TABLE rest PARTITION OF t DEFAULT""",
}
SOME = "(id, kind) = (SELECT id, kind FROM t ORDER BY random() LIMIT 1)"
STEPS = (
    f"UPDATE t SET v = v + 1 WHERE {SOME}",
    f"UPDATE t SET kind = (ARRAY['a','b','c'])[1 + floor(random() * 3)] WHERE {SOME}",
    f"UPDATE t SET id = id + 10000 WHERE {SOME} AND id < 10000",
    f"DELETE FROM t WHERE {SOME}",
    "INSERT INTO t SELECT -floor(random() * 1e9), 'a', 0 ON CONFLICT DO NOTHING",
)
LIST = TREES["list"].replace("'a', 'b'", "'a'").replace(
    "CREATE TABLE rest", "CREATE TABLE b PARTITION OF t FOR VALUES IN ('b'); CREATE TABLE rest"
)  # fmt: skip


def make(session: Session, tree: str, rows: int = 800) -> None:
    run(session, f"CREATE TABLE t (id int, kind text, v int, PRIMARY KEY (id, kind)) {tree}")
    run(
        session,
        f"INSERT INTO t SELECT n, (ARRAY['a','b','c'])[n % 3 + 1], n FROM generate_series(1, {rows}) n",
    )


def leaves(session: Session) -> set[str]:
    return {
        str(name)
        for (name,) in session.execute(
            "SELECT relid::regclass::text FROM pg_partition_tree('t') WHERE isleaf"
        ).fetchall()
    }


@pytest.mark.parametrize("tree", TREES)
def test_a_partitioned_table_whose_rows_move_between_partitions(
    database: str, connection: psycopg.Connection, tree: str
) -> None:
    make(connection, TREES[tree])
    before = leaves(connection)
    restructure(
        database,
        plan("t", alter=["ALTER v TYPE bigint", "ADD w int"], columns={"w": "v + 1"}),
        *STEPS,
    )
    assert_transformed(connection, "t", "id, kind, v, v + 1")
    assert leaves(connection) == before


def test_leaves_whose_columns_stand_in_another_order(
    database: str, connection: psycopg.Connection
) -> None:
    """A partition that was attached has columns of its own numbering, some of them long dropped."""
    make(
        connection, "PARTITION BY LIST (kind); CREATE TABLE a PARTITION OF t FOR VALUES IN ('a')", 0
    )
    run(
        connection,
        """
        CREATE TABLE rest (gone text, v int, kind text NOT NULL, hole int, id int NOT NULL);
        ALTER TABLE rest DROP gone, DROP hole;
        ALTER TABLE t ATTACH PARTITION rest DEFAULT;
        INSERT INTO t SELECT n, (ARRAY['a','b','c'])[n % 3 + 1], n FROM generate_series(1, 500) n
        """,
    )
    restructure(database, plan("t", alter=["ALTER v TYPE bigint"]), *STEPS)
    assert_transformed(connection, "t", "id, kind, v")


@pytest.mark.parametrize("victim", ["a", "t", "a, b"])
def test_truncate_while_rows_are_copied(
    database: str, connection: psycopg.Connection, victim: str
) -> None:
    """One leaf is kept locked, so that the copy has others behind it and this one before it."""
    make(connection, LIST)
    text = plan("t", alter=["ALTER v TYPE bigint"], copy={"workers": 1})
    with psycopg.connect(database) as other, Tool(database, text, hold="copy entered") as tool:
        tool.held()
        run(other, "LOCK TABLE ONLY rest IN ACCESS EXCLUSIVE MODE")
        tool.release()
        tool.until(lambda: one(connection, "SELECT count(*) FROM restructure.chunk") == 2)
        run(
            other,
            f"TRUNCATE {victim}; INSERT INTO t VALUES (1, 'a', 1), (1, 'b', 2), (1, 'c', 3) ON CONFLICT DO NOTHING",
        )
        other.commit()
        tool.finish()
    assert_transformed(connection, "t", "id, kind, v")


@pytest.mark.parametrize("victim", ["a", "t"])
@pytest.mark.parametrize("phase", [Phase.INDEX, Phase.CATCHUP, Phase.READY])
def test_truncate_after_the_copy(
    database: str, connection: psycopg.Connection, victim: str, phase: Phase
) -> None:
    make(connection, LIST)
    text = plan("t", alter=["ALTER v TYPE bigint"])
    with Tool(database, text, hold=f"{phase} entered") as tool:
        tool.held()
        run(connection, "UPDATE t SET v = v + 1")
        run(connection, f"TRUNCATE {victim}")
        run(
            connection,
            "INSERT INTO t SELECT n, (ARRAY['a','c'])[n % 2 + 1], -n FROM generate_series(1, 50) n"
            " ON CONFLICT DO NOTHING",
        )
        run(
            connection,
            "UPDATE t SET kind = 'a' WHERE id = 51 OR id < -3; BEGIN; TRUNCATE b; ROLLBACK",
        )
        tool.finish()
    assert_transformed(connection, "t", "id, kind, v")


CHANGES = {
    "attached": "CREATE TABLE n (LIKE t INCLUDING ALL); INSERT INTO n VALUES (1, 'n', 1);"
    " ALTER TABLE t ATTACH PARTITION n FOR VALUES IN ('n')",
    "detached": "ALTER TABLE t DETACH PARTITION a",
    "created": "CREATE TABLE n PARTITION OF t FOR VALUES IN ('n'); INSERT INTO t VALUES (1, 'n', 1)",
    "dropped": "DROP TABLE a",
}  # fmt: skip


MOMENTS = [
    ("attached", Phase.COPY),
    ("attached", Phase.READY),
    ("attached", Phase.CUTOVER),
    ("detached", Phase.CUTOVER),
    ("created", Phase.READY),
    ("dropped", Phase.COPY),
    ("dropped", Phase.CUTOVER),
]


@pytest.mark.parametrize(("change", "phase"), MOMENTS)
def test_partitions_that_come_and_go_stop_the_job(
    database: str, connection: psycopg.Connection, change: str, phase: Phase
) -> None:
    """Their rows are in no stream, so it must never go on in silence."""
    make(connection, LIST, 30)
    with Tool(database, plan("t", alter=["ALTER v TYPE bigint"]), hold=f"{phase} entered") as tool:
        tool.held()
        run(connection, CHANGES[change])
        with pytest.raises(SchemaDrift) as drift:
            tool.finish()
        assert drift.value.exit_code == 6
    assert (
        one(
            connection,
            "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 't'::regclass",
        )
        == "public"
    )


PARTITIONED = """
CREATE TABLE t (id bigint, kind text, v int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE t_a PARTITION OF t FOR VALUES IN ('a');
CREATE TABLE t_b PARTITION OF t FOR VALUES IN ('b') PARTITION BY HASH (id);
CREATE TABLE t_b0 PARTITION OF t_b FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE t_b1 PARTITION OF t_b FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX t_v ON t (v);
"""
DEFAULT = "CREATE TABLE t_rest PARTITION OF t DEFAULT;"


def test_a_plain_table_becomes_a_partitioned_one(
    database: str, connection: psycopg.Connection
) -> None:
    """The key becomes longer: the partition key joins it, and rows move between partitions."""
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, kind text NOT NULL, v int);
        INSERT INTO t SELECT n, (ARRAY['a','b','c'])[n % 3 + 1], n FROM generate_series(1, 800) n
        """,
    )
    restructure(database, plan("t", create=PARTITIONED + DEFAULT), *STEPS)
    assert_transformed(connection, "t", "id, kind, v")
    assert leaves(connection) == {"t_a", "t_b0", "t_b1", "t_rest"}
    run(connection, "INSERT INTO t VALUES (-5, 'b', 1)")
    assert one(connection, "SELECT count(*) FROM t WHERE id = -5") == 1


def test_a_partitioned_table_becomes_a_plain_one(
    database: str, connection: psycopg.Connection
) -> None:
    make(connection, TREES["two levels"])
    restructure(
        database,
        plan("t", create="CREATE TABLE t (id bigint, kind text, v bigint, PRIMARY KEY (id, kind))"),
        *STEPS,
    )
    assert_transformed(connection, "t", "id, kind, v")
    assert one(connection, "SELECT relkind::text FROM pg_class WHERE oid = 't'::regclass") == "r"


def test_a_partitioned_table_is_partitioned_in_another_way(
    database: str, connection: psycopg.Connection
) -> None:
    make(connection, TREES["range"])
    restructure(database, plan("t", create=PARTITIONED + DEFAULT), *STEPS)
    assert_transformed(connection, "t", "id, kind, v")
    assert leaves(connection) == {"t_a", "t_b0", "t_b1", "t_rest"}


def test_truncate_of_a_plain_table_that_becomes_partitioned(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, kind text NOT NULL, v int);"
        " INSERT INTO t SELECT n, 'a', n FROM generate_series(1, 300) n",
    )
    with Tool(database, plan("t", create=PARTITIONED + DEFAULT), hold="ready entered") as tool:
        tool.held()
        run(connection, "TRUNCATE t; INSERT INTO t VALUES (1, 'b', 1)")
        tool.finish()
    assert_transformed(connection, "t", "id, kind, v")


def test_rows_that_fit_no_partition_wait_for_their_owner(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, kind text NOT NULL, v int);
        INSERT INTO t SELECT n, (ARRAY['a','b'])[n % 2 + 1], n FROM generate_series(1, 400) n;
        UPDATE t SET kind = 'c' WHERE id IN (5, 6)
        """,
    )
    once = plan("t", create=PARTITIONED, cutover=ONE_TRY)
    refused = "SELECT count(*) FROM restructure.quarantine_shape"
    with Writers(database, STEPS[0]) as writers, until_ready(database, once) as tool:
        tool.wait_for_phase(Phase.READY)
        run(connection, "UPDATE t SET kind = 'd' WHERE id = 7")
        writers.wait_for(10)
        tool.until(lambda: count(connection, refused) == 3)
        ask_for_cutover(connection)
        with pytest.raises(NotNow, match="3 rows are refused by the new shape: CheckViolation"):
            tool.finish()
    run(connection, "UPDATE t SET kind = 'a' WHERE kind > 'b'")
    with Tool(database, plan("t", create=PARTITIONED)) as tool:
        tool.finish()
    assert_transformed(connection, "t", "id, kind, v")
