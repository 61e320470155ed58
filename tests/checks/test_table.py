"""Each obstacle of a table is refused by name; a clean table is not."""

from __future__ import annotations

import psycopg
import pytest

from restructure.checks.registry import TABLE_CHECKS, run_checks
from restructure.checks.table import space
from restructure.postgres.connect import connect
from tests.checks.build import role, table_context, table_findings

CLEAN = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial,
    parent int REFERENCES parent, a int CHECK (a > 0), c text DEFAULT 'x', UNIQUE (a, c));
"""
PARTITIONED = """
CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
CREATE TABLE t_2 PARTITION OF t_1 FOR VALUES FROM (0) TO (9);
"""
# The catalogs of extensions, as they have them: see the sources named in checks/table/extension.py.
TIMESCALE = """
CREATE TABLE other (id int); CREATE SCHEMA _timescaledb_catalog;
SET search_path = _timescaledb_catalog, public;
CREATE TABLE hypertable (id int, schema_name name, table_name name, compression_state smallint,
    compressed_hypertable_id int);
INSERT INTO hypertable VALUES (1, 'public', 't', {state}, NULL);
"""
CHUNKS = """
CREATE TABLE chunk (id int, hypertable_id int, schema_name name, table_name name,
    dropped bool DEFAULT false);
"""
TIMESCALE_LATER = """
CREATE TABLE other (id int); CREATE SCHEMA _timescaledb_catalog;
SET search_path = _timescaledb_catalog, public;
CREATE TABLE hypertable (id int, schema_name name, table_name name, status int);
INSERT INTO hypertable VALUES (1, 'public', 't', 4);
CREATE TABLE chunk (id int, hypertable_id int, relid regclass);
CREATE TABLE compression_settings (relid regclass, compress_relid regclass);
"""
CITUS = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char",
    colocationid int, repmodel "char");
CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass, shardid int8);
INSERT INTO pg_dist_partition """
BAD: list[tuple[str, str, str, str]] = [
    # check, statement, the table to ask for, and what the refusal must name
    ("kind", "CREATE VIEW x AS SELECT 1", "x", "public.x is a view"),
    ("kind", "CREATE MATERIALIZED VIEW x AS SELECT 1", "x", "materialized view"),
    ("kind", "CREATE SEQUENCE x", "x", "public.x is a sequence"),
    ("kind", "CREATE UNLOGGED TABLE x (id int PRIMARY KEY)", "x", "unlogged"),
    ("kind", "CREATE TYPE x AS (a int)", "x", "composite type"),
    (
        "kind",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE FOREIGN TABLE x (id int) SERVER s",
        "x",
        "foreign table",
    ),
    (
        "kind",
        "CREATE TABLE x (id int) PARTITION BY RANGE (id);"
        "CREATE UNLOGGED TABLE x_1 PARTITION OF x DEFAULT",
        "x",
        "public.x_1 is an unlogged table",
    ),
    (
        "access_method",
        "CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler;"
        "CREATE TABLE x (id int PRIMARY KEY) USING odd",
        "x",
        "public.x uses the access method odd",
    ),
    (
        "inheritance",
        "CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE x PARTITION OF p DEFAULT;"
        "UPDATE pg_inherits SET inhdetachpending = true WHERE inhrelid = 'x'::regclass",
        "x",
        "public.x is being detached from public.p",
    ),
    (
        "inheritance",
        "CREATE TABLE x (a int) INHERITS (parent)",
        "x",
        "column id of public.x is there only because public.parent has it",
    ),
    (
        "inheritance",
        "CREATE TABLE p (a int, CHECK (a > 0)); CREATE TABLE x (a int) INHERITS (p)",
        "x",
        "constraint p_a_check of public.x is there only because public.p has it",
    ),
    ("inheritance", "CREATE TABLE x () INHERITS (parent)", "parent", "public.x inherits"),
    (
        "inheritance",
        "CREATE TYPE ty AS (id int); CREATE TABLE x OF ty",
        "x",
        "typed table of ty",
    ),
    ("extension", "ALTER EXTENSION plpgsql ADD TABLE t", "t", "extension plpgsql"),
    ("extension", "SELECT 1", "pg_catalog.pg_class", "system table"),
    ("extension", TIMESCALE.format(state=0), "t", "public.t is a TimescaleDB hypertable"),
    ("extension", TIMESCALE.format(state=1), "t", "hypertable with compressed chunks"),
    ("extension", TIMESCALE.format(state=2), "t", "what TimescaleDB compresses a hypertable into"),
    (
        "extension",
        TIMESCALE.format(state=0) + CHUNKS + "INSERT INTO chunk VALUES (1, 1, 'public', 'other')",
        "other",
        "public.other is a chunk of a TimescaleDB hypertable, public.t",
    ),
    (
        "extension",
        TIMESCALE.format(state=2) + CHUNKS + "INSERT INTO chunk VALUES (1, 1, 'public', 'other')",
        "other",
        "public.other is a compressed chunk of a TimescaleDB hypertable",
    ),
    (
        "extension",
        TIMESCALE_LATER + "INSERT INTO chunk VALUES (1, 1, 'other')",
        "other",
        "public.other is a chunk of a TimescaleDB hypertable, public.t",
    ),
    (
        "extension",
        TIMESCALE_LATER + "INSERT INTO compression_settings VALUES ('t', 'other')",
        "other",
        "public.other is a compressed chunk of a TimescaleDB hypertable",
    ),
    ("extension", CITUS + "VALUES ('t', 'h', 1, 's')", "t", "public.t is distributed by Citus"),
    (
        "extension",
        CITUS + "VALUES ('t', 'n', 2, 't')",
        "t",
        "public.t is a reference table of Citus",
    ),
    ("extension", CITUS + "VALUES ('t', 'n', 3, 's')", "t", "by Citus as a single shard"),
    ("extension", CITUS + "VALUES ('t', 'n', 0, 's')", "t", "public.t is a local table that Citus"),
    (
        "extension",
        CITUS + "VALUES ('t', 'h', 1, 's'); CREATE TABLE public.t_102008 (id int);"
        "INSERT INTO pg_dist_shard VALUES ('t', 102008)",
        "t_102008",
        "public.t_102008 is a shard of t, a table of Citus",
    ),
    ("replica_identity", "CREATE TABLE x (id int)", "x", "public.x has no usable primary key"),
    (
        "replica_identity",
        "CREATE TABLE x (id int PRIMARY KEY DEFERRABLE)",
        "x",
        "primary key x_pkey of public.x is deferrable",
    ),
    (
        "replica_identity",
        "ALTER TABLE t REPLICA IDENTITY NOTHING",
        "t",
        "public.t has REPLICA IDENTITY NOTHING",
    ),
    (
        "replica_identity",
        "CREATE TABLE x (id int NOT NULL); CREATE UNIQUE INDEX i ON x (id);"
        "ALTER TABLE x REPLICA IDENTITY USING INDEX i; DROP INDEX i",
        "x",
        "index that was the replica identity of public.x is gone",
    ),
    (
        "replica_identity",
        "CREATE TABLE x (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE x_1 PARTITION OF x DEFAULT; ALTER TABLE x_1 REPLICA IDENTITY NOTHING",
        "x",
        "public.x_1 has REPLICA IDENTITY NOTHING",
    ),
    (
        "replica_identity",
        "CREATE TABLE x (id int PRIMARY KEY, a int NOT NULL) PARTITION BY RANGE (id);"
        "CREATE TABLE x_1 PARTITION OF x DEFAULT; CREATE UNIQUE INDEX i ON x_1 (a);"
        "ALTER TABLE x_1 REPLICA IDENTITY USING INDEX i",
        "x",
        "public.x_1 is identified by (a), public.x by (id)",
    ),
    ("wide_publications", "CREATE PUBLICATION p FOR ALL TABLES", "t", "publication p"),
    (
        "wide_publications",
        "CREATE SCHEMA restructure; CREATE PUBLICATION p FOR TABLES IN SCHEMA restructure",
        "t",
        "SCHEMA restructure",
    ),
    ("names_taken", "CREATE SCHEMA restructure_job", "t", "schema named restructure_job"),
    (
        "names_taken",
        "CREATE SCHEMA restructure_job_retired",
        "t",
        "schema named restructure_job_retired",
    ),
    ("names_taken", "CREATE PUBLICATION restructure_job", "t", "publication named restructure_job"),
    (
        "swap_names",
        "CREATE SCHEMA s; CREATE TABLE x (id int) PARTITION BY RANGE (id);"
        "CREATE TABLE x_1 PARTITION OF x FOR VALUES FROM (0) TO (1);"
        "CREATE TABLE s.x_1 PARTITION OF x FOR VALUES FROM (1) TO (2)",
        "x",
        "x_1 in several schemas: public, s",
    ),
    ("dependents: row type", "CREATE TABLE x (a t)", "t", "public.x"),
    ("dependents: object", "CREATE CAST (t AS text) WITH INOUT", "t", "public.t AS"),
    (
        "dependents: foreign key of the table above",
        "CREATE TABLE x (id int PRIMARY KEY, a int CONSTRAINT k REFERENCES parent)"
        " PARTITION BY RANGE (id); CREATE TABLE x_1 PARTITION OF x DEFAULT",
        "x_1",
        "k on public.x",
    ),
]


@pytest.mark.parametrize("case", BAD, ids=[f"{c[0]}: {c[1][:50]}" for c in BAD])
def test_an_obstacle_is_refused_by_name(
    database: str, connection: psycopg.Connection, case: tuple[str, str, str, str]
) -> None:
    check, statement, table, words = case
    connection.execute(CLEAN)
    connection.execute(statement)

    (found,) = table_findings(database, check, table)

    assert found.refuses
    assert found.check == check
    assert words in found.message
    assert found.hint


@pytest.mark.parametrize("script", [CLEAN, PARTITIONED], ids=["plain", "partitioned"])
def test_a_clean_table_is_not_refused(
    database: str, connection: psycopg.Connection, script: str
) -> None:
    connection.execute(script)
    with connect(database, role="check") as session:
        found = run_checks(table_context(session, database, "t", "job"))

    assert [finding for finding in found if finding.refuses] == []


def test_all_findings_come_at_once_and_refusals_before_warnings(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(CLEAN)
    connection.execute(
        "CREATE TABLE v (a t); ALTER TABLE t REPLICA IDENTITY NOTHING;"
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER quiet ON sql_drop EXECUTE FUNCTION e();"
    )
    with connect(database, role="check") as session:
        found = run_checks(table_context(session, database, "t", "job"))

    assert [f.check for f in found if f.refuses] == ["dependents: row type", "replica_identity"]
    assert "event_triggers" in [f.check for f in found if not f.refuses]
    assert [f.refuses for f in found] == sorted([f.refuses for f in found], reverse=True)


def test_a_temporary_table_is_refused(database: str) -> None:
    with connect(database, role="check") as session:
        session.execute("CREATE TEMPORARY TABLE t (id int PRIMARY KEY)")
        (found,) = TABLE_CHECKS["kind"](table_context(session, database, "t", "job"))

    assert "temporary" in found.message


def test_a_unique_index_that_could_serve_is_named(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE t (id int NOT NULL); CREATE UNIQUE INDEX good ON t (id)")
    (found,) = table_findings(database, "replica_identity")

    assert found.hint == "ALTER TABLE public.t REPLICA IDENTITY USING INDEX good."

    connection.execute("ALTER TABLE t REPLICA IDENTITY USING INDEX good")
    assert table_findings(database, "replica_identity") == []


def test_a_role_that_does_not_own_the_table_is_refused(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(CLEAN)
    name, dsn = role(connection, database)
    (found, schema) = table_findings(dsn, "owner")

    assert f"public.t belongs to postgres, and {name} is not a member" in found.message
    assert "schema public" in schema.message

    connection.execute(f"ALTER TABLE t OWNER TO {name}; GRANT CREATE ON SCHEMA public TO {name}")
    assert table_findings(dsn, "owner") == []


def test_the_tables_that_the_swap_locks_besides_must_be_ours_too(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
        "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (9);"
        "CREATE TABLE rest PARTITION OF p DEFAULT"
    )
    name, dsn = role(connection, database)
    connection.execute(f"ALTER TABLE t OWNER TO {name}; GRANT CREATE ON SCHEMA public TO {name}")
    above, beside = table_findings(dsn, "inheritance")
    assert "public.t is part of public.p, which belongs to postgres" in above.message
    assert "public.rest, the default partition" in beside.message

    connection.execute(f"ALTER TABLE p OWNER TO {name}; ALTER TABLE rest OWNER TO {name}")
    assert table_findings(dsn, "inheritance") == []


def test_a_partition_is_not_refused(database: str, connection: psycopg.Connection) -> None:
    connection.execute(PARTITIONED)
    for table in ("t_1", "t_2"):
        assert table_findings(database, "inheritance", table) == []


def test_row_security_that_filters_our_role_is_refused(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(CLEAN)
    name, dsn = role(connection, database)
    connection.execute(f"ALTER TABLE t OWNER TO {name}; ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    assert table_findings(dsn, "filtered_rows") == []

    connection.execute("ALTER TABLE t FORCE ROW LEVEL SECURITY")
    (found,) = table_findings(dsn, "filtered_rows")
    assert "public.t" in found.message
    assert name in found.hint

    connection.execute(f"ALTER ROLE {name} BYPASSRLS")
    assert table_findings(dsn, "filtered_rows") == []


def test_a_prepared_transaction_that_holds_the_table_is_refused_by_its_gid(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(CLEAN)
    gid = f"forgotten in {connection.info.dbname}"
    with connection.transaction():
        connection.execute("INSERT INTO parent VALUES (1); LOCK TABLE t IN ROW EXCLUSIVE MODE")
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
    (found,) = table_findings(database, "held_by_prepared")

    assert gid in found.message


def test_a_slot_of_the_jobs_name_is_refused(database: str, connection: psycopg.Connection) -> None:
    connection.execute(CLEAN)
    job = connection.info.dbname
    connection.execute(
        f"SELECT pg_create_logical_replication_slot('restructure_{job}', 'pgoutput')"
    )
    (found,) = table_findings(database, "names_taken", job=job)

    assert f"replication slot named restructure_{job}" in found.message

    connection.execute(f"CREATE PUBLICATION restructure_{job}_reverse")
    connection.execute(f"SELECT pg_create_physical_replication_slot('restructure_{job}_reverse')")
    try:
        assert len(table_findings(database, "names_taken", job=job)) == 3
    finally:  # it is of no database, and would outlive this one
        connection.execute(f"SELECT pg_drop_replication_slot('restructure_{job}_reverse')")


JOBS = """
CREATE SCHEMA restructure;
CREATE TABLE restructure.job (id int, name text, phase text, source oid, source_name text);
"""


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        pytest.param("('job', 'copy', 't'::regclass, 'public.t')", "", id="its own"),
        pytest.param("('job', 'live', 'parent'::regclass, 'public.t')", "", id="its own, swapped"),
        pytest.param(
            "('job', 'copy', 'parent'::regclass, 'public.parent')",
            "job name job is already used for public.parent",
            id="another table",
        ),
        pytest.param(
            "('other', 'copy', 't'::regclass, 'public.t')",
            "public.t is being restructured by job other",
            id="another job on the table",
        ),
    ],
)
def test_names_of_running_jobs(
    database: str, connection: psycopg.Connection, job: str, expected: str
) -> None:
    connection.execute(CLEAN + JOBS)
    connection.execute(f"INSERT INTO restructure.job VALUES (1, {job[1:]}")
    if not expected:
        connection.execute("CREATE SCHEMA restructure_job; CREATE PUBLICATION restructure_job")

    found = table_findings(database, "names_taken")

    assert [expected in finding.message for finding in found] == ([True] if expected else [])


@pytest.mark.parametrize(
    ("one", "other"), [("a_b", "a-b"), ("a", "a-reverse"), ("a-retired", "a")], ids=str
)
def test_two_jobs_whose_names_become_the_same_are_told_apart(
    database: str, connection: psycopg.Connection, one: str, other: str
) -> None:
    connection.execute(CLEAN + JOBS)
    connection.execute(
        "INSERT INTO restructure.job VALUES (1, %s, 'copy', 'parent'::regclass, 'public.parent')",
        [one],
    )
    (found,) = table_findings(database, "names_taken", job=other)

    assert f"would share its names with job {one}" in found.message

    connection.execute("UPDATE restructure.job SET phase = 'aborted'")
    assert table_findings(database, "names_taken", job=other) == []


def test_a_table_that_a_subscription_writes_is_refused(
    database: str, connection: psycopg.Connection
) -> None:
    """Tables come to a subscription by a refresh, so its row is written by hand here."""
    connection.execute(CLEAN)
    connection.execute(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)"
    )
    connection.execute("SET allow_system_table_mods = on")
    connection.execute(
        "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
        " SELECT oid, 't'::regclass, 'r' FROM pg_subscription WHERE subname = 'feed'"
    )
    (found,) = table_findings(database, "subscribed")

    assert "subscription feed writes into public.t" in found.message
    connection.execute("DELETE FROM pg_subscription_rel")


def test_the_space_that_a_big_table_needs_is_told_but_not_refused(
    database: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(CLEAN)
    assert table_findings(database, "space") == []

    monkeypatch.setattr(space, "WORTH_SAYING", 1)
    (found,) = table_findings(database, "space")
    assert not found.refuses
