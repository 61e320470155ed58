"""Foreign keys that point to the table, from elsewhere and from itself: each comes back as it was."""

from __future__ import annotations

import subprocess

import psycopg
import pytest

from restructure.checks.table import lost_self_references, narrow_references
from restructure.demo.server import Server
from restructure.postgres.script import Script
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.carry.swap import Swap, run_swap, swap_steps
from restructure.shape.deparse import printed
from restructure.shape.made import Shadow
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry.build import NAMES, retire
from tests.shape_workbench import finish, plan

OLD = """
CREATE SCHEMA restructure;
CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, "The Key" text UNIQUE,
                UNIQUE (a, b), UNIQUE (b, a));
"""
CHILDREN = {
    "plain": "CREATE TABLE child (t int REFERENCES t)",
    "actions": "CREATE TABLE child (t int DEFAULT 1 REFERENCES t ON DELETE SET DEFAULT"
    " ON UPDATE CASCADE)",
    "deferred": "CREATE TABLE child (t int REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
    "deferrable": "CREATE TABLE child (t int REFERENCES t ON DELETE CASCADE DEFERRABLE)",
    "match full": "CREATE TABLE child (x int, y int, FOREIGN KEY (y, x) REFERENCES t (a, b)"
    " MATCH FULL ON DELETE RESTRICT)",
    "some columns set null": "CREATE TABLE child (x int, y int, FOREIGN KEY (x, y)"
    " REFERENCES t (b, a) ON DELETE SET NULL (y))",
    "names": 'CREATE SCHEMA "An App"; CREATE TABLE "An App"."A ""child""" ("% id" text'
    ' CONSTRAINT "to (t) %s" REFERENCES t ("The Key"));'
    'COMMENT ON CONSTRAINT "to (t) %s" ON "An App"."A ""child""" IS \'it'
    "s 100%'",
    "not valid": "CREATE TABLE child (t int); INSERT INTO child VALUES (77);"
    "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t) REFERENCES t NOT VALID",
    "two from one": "CREATE TABLE child (t int REFERENCES t, u int REFERENCES t ON DELETE CASCADE)",
    "a wider child": "CREATE TABLE child (t bigint REFERENCES t)",
    "partitioned": "CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t ON DELETE CASCADE)"
    " PARTITION BY LIST (t);"
    "CREATE TABLE child_1 PARTITION OF child FOR VALUES IN (1);"
    "CREATE TABLE child_2 PARTITION OF child DEFAULT PARTITION BY LIST (t);"
    "CREATE TABLE child_3 (t int CONSTRAINT by_itself REFERENCES t ON DELETE CASCADE);"
    "ALTER TABLE child_2 ATTACH PARTITION child_3 DEFAULT;"
    "CREATE TABLE child_4 (t int CONSTRAINT by_itself REFERENCES t ON DELETE CASCADE)"
    " PARTITION BY LIST (t);"
    "CREATE TABLE child_5 PARTITION OF child_4 DEFAULT;"
    "ALTER TABLE child ATTACH PARTITION child_4 FOR VALUES IN (4);"
    "COMMENT ON CONSTRAINT to_t ON child IS 'root'; COMMENT ON CONSTRAINT to_t ON child_1 IS 'leaf';"
    "COMMENT ON CONSTRAINT by_itself ON child_4 IS 'branch'; INSERT INTO child VALUES (1), (2), (4)",
    "a parent as well": "CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES t);"
    "ALTER TABLE t ADD child int REFERENCES child ON DELETE SET NULL",
    "itself": "ALTER TABLE t ADD up int CONSTRAINT upwards REFERENCES t ON DELETE CASCADE"
    " DEFERRABLE INITIALLY DEFERRED, ADD c int, ADD d int,"
    " ADD CONSTRAINT late FOREIGN KEY (c, d) REFERENCES t (a, b) MATCH FULL NOT VALID;"
    "COMMENT ON CONSTRAINT upwards ON t IS 'a tree'",
}
PARTITIONED = """
CREATE SCHEMA restructure; CREATE SCHEMA parts;
CREATE TABLE t (id int PRIMARY KEY, up int CONSTRAINT upwards REFERENCES t) PARTITION BY RANGE (id);
CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE parts.t_lowest PARTITION OF t_low FOR VALUES FROM (0) TO (5);
CREATE TABLE t_high (up int CONSTRAINT of_high REFERENCES t, id int PRIMARY KEY);
ALTER TABLE t ATTACH PARTITION t_high FOR VALUES FROM (10) TO (20);
ALTER TABLE t_high ADD CONSTRAINT beside FOREIGN KEY (up) REFERENCES t_high;
COMMENT ON CONSTRAINT upwards ON t IS 'a tree'; COMMENT ON CONSTRAINT of_high ON t_high IS 'high';
INSERT INTO t VALUES (1, NULL), (2, 1), (11, NULL), (12, 11);
CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t ON DELETE CASCADE);
CREATE TABLE to_leaf (t int REFERENCES parts.t_lowest ON DELETE RESTRICT);
CREATE TABLE to_branch (t int REFERENCES t_low);
CREATE TABLE two (t int CONSTRAINT to_t REFERENCES t ON DELETE CASCADE) PARTITION BY LIST (t);
CREATE TABLE two_1 PARTITION OF two FOR VALUES IN (1);
CREATE TABLE two_2 (t int CONSTRAINT by_itself REFERENCES t ON DELETE CASCADE);
ALTER TABLE two ATTACH PARTITION two_2 DEFAULT;
INSERT INTO child VALUES (1), (11); INSERT INTO to_leaf VALUES (1); INSERT INTO two VALUES (1), (12);
"""


def run(connection: psycopg.Connection, script: str) -> None:
    connection.execute(printed(script))


def swap(connection: psycopg.Connection, *clauses: str) -> Swap:
    """From plan to swap, and what comes after it twice: a process may end in between."""
    source = read_table(connection, "public.t")
    loaded = plan("public.t", alter=list(clauses))
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, loaded, NAMES)
        assert list(rehearse(connection, source, shadow, NAMES)) == []
    finish(connection, shadow, "key", "index")
    run(
        connection,
        f"INSERT INTO {NAMES.shadow_schema}.t SELECT * FROM public.t",
    )
    prepare_shadow(connection, source, shadow, NAMES)
    composed = swap_steps(connection, source, shadow, NAMES)
    with connection.transaction():
        run_swap(connection, composed)
    retire(connection, source)
    finish(connection, shadow, "after")
    for aside in composed.later:
        run(connection, aside.statement)
    return composed


def reasons(connection: psycopg.Connection, *clauses: str, **sections: object) -> list[str]:
    """What the rehearsal says of a plan, which locks no table of the application's for it."""
    source = read_table(connection, "public.t")
    loaded = plan("public.t", **(sections or {"alter": list(clauses)}))
    with connection.transaction(force_rollback=True):
        shadow = build_shadow(Script(connection), source, loaded, NAMES)
        found = [reason for _, reason in rehearse(connection, source, shadow, NAMES)]
        held = connection.execute(LOCKS).fetchall()
    assert [name for (name,) in held if name != "t"] == []
    return found


LOCKS = """
SELECT c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
WHERE pid = pg_backend_pid() AND c.relkind IN ('r', 'p')
  AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'restructure_job'::regnamespace)
"""


def warnings(connection: psycopg.Connection, **sections: object) -> list[str]:
    source = read_table(connection, "public.t")
    with connection.transaction(force_rollback=True):
        shadow: Shadow = build_shadow(
            Script(connection), source, plan("public.t", **sections), NAMES
        )
        found = [*narrow_references.find(connection, source, shadow)]
        if "create" in sections:
            found += lost_self_references.find(connection, source, shadow)
    assert not any(finding.refuses for finding in found)
    return [finding.message for finding in found]


def dump(server: Server, database: str) -> str:
    """Everything but what is ours."""
    done = subprocess.run(
        [server.bin / "pg_dump", "--schema-only", "--exclude-schema=restructure*", database],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("--", "\\")))


def keys(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """More than a dump shows: of partitions too, and what is validated."""
    return connection.execute(
        """
        SELECT k.conrelid::regclass::text, k.conname, k.convalidated, p.conname,
               k.confrelid::regclass::text, pg_get_constraintdef(k.oid),
               obj_description(k.oid, 'pg_constraint')
        FROM pg_constraint k LEFT JOIN pg_constraint p ON p.oid = k.conparentid
        JOIN pg_class c ON c.oid = k.conrelid
        WHERE k.contype = 'f' AND (p.oid IS NULL OR p.confrelid = k.confrelid)
          AND NOT c.relnamespace::regnamespace::text LIKE 'restructure%'
        ORDER BY 1, 2, 5
        """
    ).fetchall()


def test_nothing_differs_where_nothing_was_asked(
    server: Server, database: str, connection: psycopg.Connection, child: str
) -> None:
    run(connection, OLD + "INSERT INTO t (id, a, b) SELECT n, n, n FROM generate_series(1, 9) n;")
    run(connection, CHILDREN[child])
    before, old = dump(server, database), keys(connection)

    swap(connection)

    assert dump(server, database) == before
    assert keys(connection) == old


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "child" in metafunc.fixturenames:
        metafunc.parametrize("child", CHILDREN)


def test_nothing_differs_where_the_table_itself_is_partitioned(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    run(connection, PARTITIONED)
    before, old = dump(server, database), keys(connection)

    swap(connection)

    assert dump(server, database) == before
    assert keys(connection) == old
    for number, table in ((1, "to_leaf"), (11, "child"), (12, "two")):
        run(connection, f"DELETE FROM to_leaf; DELETE FROM t WHERE up = {number}")
        run(connection, f"DELETE FROM t WHERE id = {number}")
        left = connection.execute(f"SELECT count(*) FROM {table} WHERE t = {number}").fetchone()
        assert left == (0,), table


@pytest.mark.pg_at_least(18)
def test_keys_over_periods_and_keys_not_enforced(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE SCHEMA restructure;
        CREATE TABLE t (n int PRIMARY KEY, id int4range, "P" daterange,
                        UNIQUE (id, "P" WITHOUT OVERLAPS));
        CREATE TABLE child (t int4range, p daterange, CONSTRAINT during FOREIGN KEY (t, PERIOD p)
                            REFERENCES t (id, PERIOD "P"));
        CREATE TABLE lax (t int);
        ALTER TABLE lax ADD CONSTRAINT loose FOREIGN KEY (t) REFERENCES t NOT ENFORCED;
        INSERT INTO t VALUES (1, '[1,2)', '[2026-01-01,2027-01-01)');
        INSERT INTO child VALUES ('[1,2)', '[2026-03-01,2026-04-01)'); INSERT INTO lax VALUES (7);
        """,
    )
    before, old = dump(server, database), keys(connection)

    swap(connection)

    assert dump(server, database) == before
    assert keys(connection) == old


@pytest.mark.pg_at_least(18)
def test_a_partitioned_tables_key_that_was_not_validated_stays_so(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        OLD + "CREATE TABLE child (t int) PARTITION BY LIST (t);"
        "CREATE TABLE child_1 PARTITION OF child FOR VALUES IN (1);"
        "CREATE TABLE child_2 PARTITION OF child DEFAULT; INSERT INTO child VALUES (77);"
        "ALTER TABLE child ADD CONSTRAINT late FOREIGN KEY (t) REFERENCES t NOT VALID;"
        "ALTER TABLE child_1 VALIDATE CONSTRAINT late",
    )
    before, old = dump(server, database), keys(connection)

    swap(connection)

    assert dump(server, database) == before
    assert keys(connection) == old


def test_a_key_follows_a_renamed_and_widened_column(connection: psycopg.Connection) -> None:
    run(
        connection,
        OLD + "CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t ON DELETE CASCADE);"
        "INSERT INTO t VALUES (1, 1, 1); INSERT INTO child VALUES (1);",
    )

    composed = swap(connection, 'RENAME COLUMN id TO "The id"', 'ALTER "The id" TYPE bigint')

    assert [key[5] for key in keys(connection)] == [
        'FOREIGN KEY (t) REFERENCES t("The id") ON DELETE CASCADE'
    ]
    assert [step.text for step in composed.steps if "ADD CONSTRAINT" in step.text] == [
        'ALTER TABLE "public"."child" ADD CONSTRAINT "to_t" FOREIGN KEY (t)'
        ' REFERENCES "public"."t"("The id") ON DELETE CASCADE NOT VALID'
    ]
    assert [aside.statement for aside in composed.later] == [
        'ALTER TABLE "public"."child" VALIDATE CONSTRAINT "to_t"'
    ]
    run(connection, "DELETE FROM t")
    assert connection.execute("SELECT count(*) FROM child").fetchone() == (0,)


def test_the_retired_table_has_no_keys_and_children_are_locked_as_writers(
    connection: psycopg.Connection,
) -> None:
    run(connection, OLD + CHILDREN["a parent as well"])

    composed = swap(connection)

    left = connection.execute(
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
        " AND 'restructure_job_retired.t'::regclass IN (conrelid, confrelid)"
    ).fetchone()
    assert left == (0,)
    child = [wanted for wanted in composed.wanted if wanted.relation.name == "child"]
    assert [(wanted.mode, wanted.writer) for wanted in child] == [("ACCESS EXCLUSIVE", True)]


REFUSED = [
    pytest.param(["DROP CONSTRAINT t_u_key"],
                 'no unique constraint matching given keys for referenced table "t"', id="no index"),
    pytest.param(["DROP COLUMN u"],
                 'column "u" referenced in foreign key constraint does not exist', id="dropped"),
    pytest.param(["ALTER u TYPE text"], "integer and text", id="retyped"),
]  # fmt: skip


@pytest.mark.parametrize(("clauses", "why"), REFUSED)
def test_a_key_that_the_plan_makes_impossible_is_refused_by_name(
    connection: psycopg.Connection, clauses: list[str], why: str
) -> None:
    run(connection, OLD + "ALTER TABLE t ADD u int UNIQUE")
    run(connection, "CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t (u))")

    (reason,) = reasons(connection, *clauses)

    assert reason.startswith("foreign key to_t of public.child: ")
    assert why in reason


def test_a_key_to_a_partition_that_is_gone_is_refused(connection: psycopg.Connection) -> None:
    run(
        connection,
        "CREATE SCHEMA restructure; CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE child (t int CONSTRAINT to_low REFERENCES low)",
    )

    found = reasons(connection, create="CREATE TABLE t (id bigint PRIMARY KEY)")

    assert found == [
        "foreign key to_low of public.child: the new table has no partition called low"
    ]


@pytest.mark.parametrize("table", ["t", "child"])
def test_keys_whose_triggers_somebody_has_disabled_are_refused(
    connection: psycopg.Connection, table: str
) -> None:
    run(connection, OLD + "CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t)")
    run(connection, "ALTER TABLE t ADD up int CONSTRAINT upwards REFERENCES t")
    run(connection, f"ALTER TABLE {table} DISABLE TRIGGER ALL")

    found = reasons(connection)

    ours = [f"foreign key upwards: public.{table} has its triggers disabled"] * (table == "t")
    theirs = [f"foreign key to_t of public.child: public.{table} has its triggers disabled"]
    assert [reason.split(" or altered")[0] for reason in found] == ours + theirs


def test_a_child_of_another_owner_is_refused(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    worker = f"{connection.info.dbname}_worker"
    run(
        connection,
        OLD + "CREATE TABLE child (t int CONSTRAINT to_t REFERENCES t); DROP SCHEMA restructure;"
        f"CREATE ROLE {worker} LOGIN PASSWORD 'secret'; ALTER TABLE t OWNER TO {worker};"
        f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {worker}",
    )
    dsn = psycopg.conninfo.make_conninfo(database, user=worker, password="secret")
    with psycopg.connect(dsn, autocommit=True) as session:
        (reason,) = reasons(session)

    assert reason.startswith("foreign key to_t of public.child: the table belongs to ")
    assert f"{worker} is not a member" in reason


def test_columns_that_overflow_next_are_named_with_their_limits(
    connection: psycopg.Connection,
) -> None:
    run(
        connection,
        OLD + "CREATE DOMAIN d AS smallint; ALTER TABLE t ADD up int REFERENCES t;"
        "CREATE TABLE child (t int PRIMARY KEY REFERENCES t, other int);"
        "CREATE TABLE grandchild (c d REFERENCES child, other int); CREATE SCHEMA app;"
        "CREATE TABLE app.wide (t bigint REFERENCES t);",
    )

    found = warnings(connection, alter=["ALTER id TYPE bigint"])
    better = warnings(connection, alter=["ALTER id TYPE bigint", "ALTER up TYPE bigint"])

    limit = "it can refer to no row of public.t whose id is above"
    assert found == [
        f"public.child.t is integer: {limit} 2147483647, and id is bigint then",
        f"public.grandchild.c is d: {limit} 32767, and id is bigint then",
        f"public.t.up is integer: {limit} 2147483647, and id is bigint then",
    ]
    assert better == found[:2]
    assert warnings(connection, alter=["ALTER a TYPE bigint"]) == [
        "public.grandchild.c is d: "
        "it can refer to no row of public.t whose id is above 32767, and id is integer then"
    ]


def test_a_self_reference_that_create_leaves_out_is_said(connection: psycopg.Connection) -> None:
    run(
        connection,
        "CREATE SCHEMA restructure;"
        'CREATE TABLE t (id int PRIMARY KEY, "Up" int CONSTRAINT upwards REFERENCES t)',
    )
    columns = 'CREATE TABLE t (id int PRIMARY KEY, "Up" int'

    (message,) = warnings(connection, create=f"{columns})")

    assert message.startswith("foreign key upwards of public.t points to the table itself")
    assert warnings(connection, create=f"{columns} REFERENCES t)") == []
