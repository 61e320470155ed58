"""Extended statistics are made and filled before the swap, and end under their own names."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.postgres.script import Script
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import run_swap, swap_steps
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry.build import NAMES, dump
from tests.carry.reasons import reasons
from tests.carry.test_built_shadow import changes, restructure
from tests.carry.test_swap import prefix
from tests.shape_workbench import plan

NOTHING = "ALTER COLUMN a SET DEFAULT 1"
PLAIN = """
CREATE SCHEMA restructure; CREATE SCHEMA side; CREATE ROLE {p}_owner;
GRANT CREATE ON SCHEMA public, side TO {p}_owner;
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, b int, c text);
"""
PARTITIONED = (
    PLAIN.replace("c text);", "c text) PARTITION BY RANGE (id);")
    + """
CREATE TABLE side.t_low PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t_high PARTITION OF t DEFAULT;
CREATE STATISTICS side.leaf ON a, b FROM side.t_low;
"""
)
COMMON = """
CREATE STATISTICS "All of them" ON b, a FROM t;
CREATE STATISTICS few (mcv, ndistinct) ON a, b, c FROM t;
CREATE STATISTICS side.far (dependencies) ON (a % 100), c, (lower(c)) FROM t;
CREATE STATISTICS alone ON (length(c)) FROM t;
ALTER STATISTICS few SET STATISTICS 77; ALTER STATISTICS alone SET STATISTICS 0;
COMMENT ON STATISTICS few IS 'it''s 100%';
ALTER STATISTICS side.far OWNER TO {p}_owner;
"""


@pytest.mark.parametrize(
    "script", [PLAIN + COMMON, PARTITIONED + COMMON], ids=["plain", "partitioned"]
)
def test_every_variant_is_carried_and_a_dump_is_the_same(
    server: Server, database: str, connection: psycopg.Connection, script: str
) -> None:
    connection.execute(script.format(p=prefix(connection)))
    before = dump(server, database), statistics(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), statistics(connection)) == before
    left = connection.execute(
        "SELECT stxname FROM pg_statistic_ext WHERE stxnamespace::regnamespace::text ~ 'restructure'"
    )
    assert left.fetchall() == []


def statistics(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT stxname, stxnamespace::regnamespace::text,"
        " stxowner::regrole::text, coalesce(stxstattarget, -1), pg_get_statisticsobjdef(oid),"
        " obj_description(oid, 'pg_statistic_ext') FROM pg_statistic_ext s ORDER BY stxname"
    ).fetchall()


def test_they_are_filled_before_the_swap(connection: psycopg.Connection) -> None:
    connection.execute((PLAIN + COMMON).format(p=prefix(connection)))
    source = read_table(connection, "public.t")
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, plan("public.t", alter=[NOTHING]), NAMES)
    for aside in shadow.set_aside:
        connection.execute(aside.statement)
    connection.execute(
        "INSERT INTO restructure_job.t SELECT n, n / 2, n / 2, n FROM generate_series(1, 500) n"
    )

    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute("VACUUM (ANALYZE) restructure_job.t")
    assert prepare_shadow(connection, source, shadow, NAMES) == []
    with connection.transaction():
        run_swap(connection, swap_steps(connection, source, shadow, NAMES))

    filled = connection.execute(
        "SELECT stxname FROM pg_statistic_ext_data d JOIN pg_statistic_ext s ON s.oid = d.stxoid"
        " WHERE stxrelid = 't'::regclass ORDER BY 1"
    ).fetchall()
    assert filled == [("All of them",), ("far",), ("few",)]


def test_what_the_source_has_changed_since_is_changed_on_the_shadow_and_nothing_else(
    connection: psycopg.Connection,
) -> None:
    connection.execute((PLAIN + COMMON).format(p=prefix(connection)))
    source = read_table(connection, "public.t")
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, plan("public.t", alter=[NOTHING]), NAMES)
    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute(
        "DROP STATISTICS alone; DROP STATISTICS few; CREATE STATISTICS few ON a, b FROM t;"
        "ALTER STATISTICS side.far SET STATISTICS 5; COMMENT ON STATISTICS \"All of them\" IS 'x';"
        "CREATE STATISTICS more ON b, c FROM t"
    )

    steps = prepare_shadow(connection, source, shadow, NAMES)

    assert sorted(step.text.split("restructure_job")[0] for step in steps) == [
        'ALTER STATISTICS "',
        'COMMENT ON STATISTICS "',
        'CREATE STATISTICS "',
        'CREATE STATISTICS "',
        'DROP STATISTICS "',
        'DROP STATISTICS "',
    ]


def test_they_follow_a_renamed_column(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(PLAIN.format(p=prefix(connection)) + "CREATE STATISTICS s ON a, b FROM t")
    before = dump(server, database)

    restructure(connection, "public.t", "RENAME COLUMN b TO wide")

    assert changes(before, dump(server, database)) == [
        "-    b integer,",
        "+    wide integer,",
        "-CREATE STATISTICS public.s ON a, b FROM public.t;",
        "+CREATE STATISTICS public.s ON a, wide FROM public.t;",
    ]


def test_a_statistics_object_of_the_plan_wins_and_gets_its_place(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute((PLAIN + COMMON).format(p=prefix(connection)))
    before = dump(server, database)
    source = read_table(connection, "public.t")
    create = (
        "CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, b int, c text);"
        "CREATE STATISTICS far ON a, b FROM t; CREATE STATISTICS mine ON b, c FROM t"
    )
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, plan("public.t", create=create), NAMES)
    for aside in shadow.set_aside:
        connection.execute(aside.statement)
    for _ in range(2):
        prepare_shadow(connection, source, shadow, NAMES, by_create=True)
    with connection.transaction():
        run_swap(connection, swap_steps(connection, source, shadow, NAMES))

    assert [line for line in changes(before, dump(server, database)) if "OWNER" not in line] == [
        "+CREATE STATISTICS public.mine ON b, c FROM public.t;",
    ]
    far = connection.execute(
        "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxname = 'far'"
    ).fetchall()
    assert far == [("CREATE STATISTICS side.far ON a, b FROM t",)]


@pytest.mark.parametrize(
    ("made", "clause", "named"),
    [
        ("s ON a, b FROM t", "DROP COLUMN b", "statistics public.s: it uses column b"),
        ("s ON (b + 1) FROM t", "DROP COLUMN b", "statistics public.s: it uses column b"),
        ("s ON (b + 1) FROM t", "RENAME COLUMN b TO d", "column b, which is called d"),
        ("s ON (b + 1) FROM t", "ALTER COLUMN b TYPE text", "statistics public.s: operator does"),
        (
            "s ON a, b FROM t; CREATE STATISTICS side.s ON b, c FROM t",
            NOTHING,
            "statistics side.s: another one",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    connection: psycopg.Connection, made: str, clause: str, named: str
) -> None:
    connection.execute(PLAIN.format(p=prefix(connection)) + f"CREATE STATISTICS {made}")

    (reason,) = reasons(connection, "public.t", clause)

    assert named in reason
    with pytest.raises((OperatorNeeded, psycopg.errors.UndefinedFunction)):
        restructure(connection, "public.t", clause)
