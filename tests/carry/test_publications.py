"""Publications go on with the new table; what would break their subscribers is refused by name."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.shape.carry import publications
from restructure.shape.table import read_table
from tests.carry.build import NAMES, dump
from tests.carry.reasons import reasons
from tests.carry.test_built_shadow import restructure
from tests.carry.test_swap import prefix
from tests.checks.build import table_findings

NOTHING = "ALTER COLUMN a SET DEFAULT 1"
PLAIN = """
CREATE SCHEMA restructure; CREATE TABLE other (id int PRIMARY KEY);
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, c text);
"""
PARTITIONED = (
    PLAIN.replace("c text);", "c text) PARTITION BY RANGE (id);")
    + """
CREATE SCHEMA parts;
CREATE TABLE parts.t_low PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t_high PARTITION OF t DEFAULT;
CREATE PUBLICATION leaf FOR TABLE parts.t_low (c, id) WHERE (id <> 7);
CREATE PUBLICATION via_root FOR TABLE t WITH (publish_via_partition_root);
"""
)
COMMON = """
CREATE PUBLICATION whole FOR TABLE t, other;
CREATE PUBLICATION "Some of it" FOR TABLE t (id, a) WHERE (id % 100 > 5 AND id <> 7)
    WITH (publish = 'insert, delete');
CREATE PUBLICATION by_filter FOR TABLE t WHERE (c <> 'it''s 100%') WITH (publish = 'insert');
CREATE PUBLICATION by_schema FOR TABLES IN SCHEMA public;
COMMENT ON PUBLICATION whole IS 'kept';
"""


@pytest.mark.parametrize(
    "script",
    [
        PLAIN + COMMON,
        PARTITIONED + COMMON.replace("WITH (publish", "WITH (publish_via_partition_root, publish"),
    ],
    ids=["plain", "partitioned"],
)
def test_every_variant_is_carried_and_a_dump_is_the_same(
    server: Server, database: str, connection: psycopg.Connection, script: str
) -> None:
    connection.execute(script)
    before = dump(server, database), members(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), members(connection)) == before


def members(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT p.*, obj_description(oid, 'pg_publication') FROM pg_publication_tables p"
        " JOIN pg_publication q USING (pubname) ORDER BY 1, 2, 3"
    ).fetchall()


def test_a_column_list_follows_a_renamed_column(connection: psycopg.Connection) -> None:
    connection.execute(PLAIN + "CREATE PUBLICATION p FOR TABLE t (id, a)")

    restructure(connection, "public.t", "RENAME COLUMN a TO b")

    (found,) = members(connection)
    assert found[3] == ["id", "b"]


def test_our_own_publications_stay_with_the_table_they_were_made_for(
    connection: psycopg.Connection,
) -> None:
    connection.execute(PLAIN)
    for name in (NAMES.publication, "restructure_another"):
        connection.execute(
            f"CREATE PUBLICATION {name} FOR TABLE t (id);"
            f"COMMENT ON PUBLICATION {name} IS 'made by restructure'"
        )

    assert publications.find(connection, read_table(connection, "public.t")) == []
    connection.execute(f"COMMENT ON PUBLICATION {NAMES.publication} IS NULL")
    restructure(connection, "public.t", NOTHING)

    assert {row[1] for row in members(connection)} == {"restructure_job_retired"}


@pytest.mark.parametrize(
    ("made", "clause", "named"),
    [
        ("(id, a)", "DROP COLUMN a", "publication p: its column list has a"),
        ("WHERE (a > 1) WITH (publish = 'insert')", "DROP COLUMN a", "p: it uses column a"),
        ("WHERE (a > 1) WITH (publish = 'insert')", "RENAME COLUMN a TO b", "which is called b"),
        (
            "WHERE (a > 1) WITH (publish = 'insert')",
            "ALTER COLUMN a TYPE text",
            "publication p: operator does not exist: text > integer",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    connection: psycopg.Connection, made: str, clause: str, named: str
) -> None:
    connection.execute(PLAIN + f"CREATE PUBLICATION p FOR TABLE t {made}")

    (reason,) = reasons(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)

    assert named in reason
    with pytest.raises((OperatorNeeded, psycopg.errors.UndefinedFunction)):
        restructure(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)


def test_a_replica_identity_that_the_row_filter_no_longer_fits_is_found_before(
    connection: psycopg.Connection,
) -> None:
    """Else clients' own updates would fail after the swap."""
    connection.execute(
        PLAIN + "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, a);"
        "CREATE PUBLICATION p FOR TABLE t WHERE (a > 1)"
    )

    (reason,) = reasons(
        connection,
        "public.t",
        "DROP CONSTRAINT t_pkey",
        "ADD CONSTRAINT t_pkey PRIMARY KEY (id)",
        "ADD CONSTRAINT t_key UNIQUE (id, a)",
    )

    assert reason.startswith("publication p: cannot update table")
    assert connection.execute("SELECT pubname FROM pg_publication").fetchall() == [("p",)]


@pytest.mark.parametrize(
    "made", ["TABLE t", "TABLES IN SCHEMA public"], ids=["by table", "by schema"]
)
def test_new_partitions_that_subscribers_do_not_know_are_refused(
    connection: psycopg.Connection, made: str
) -> None:
    connection.execute(PLAIN + f"CREATE PUBLICATION p FOR {made}")
    create = (
        "CREATE TABLE t (id int PRIMARY KEY, a int, c text) PARTITION BY RANGE (id);"
        "CREATE TABLE t_all PARTITION OF t DEFAULT;"
    )

    (reason,) = reasons(connection, "public.t", create=create)
    connection.execute("ALTER PUBLICATION p SET (publish_via_partition_root = true)")

    assert "publication p: its subscribers would get rows of t_all" in reason
    assert "publish_via_partition_root" in reason
    assert reasons(connection, "public.t", create=create) == []


def test_a_publication_of_somebody_else_is_refused(
    database: str, connection: psycopg.Connection
) -> None:
    name = prefix(connection)
    connection.execute(
        PLAIN + "CREATE PUBLICATION p FOR TABLE t;"
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'; ALTER TABLE t OWNER TO {name};"
        f"GRANT CREATE ON DATABASE {name} TO {name}; GRANT CREATE ON SCHEMA public TO {name}"
    )
    dsn = psycopg.conninfo.make_conninfo(database, user=name, password="secret")

    with psycopg.connect(dsn, autocommit=True) as worker:
        (reason,) = reasons(worker, "public.t", NOTHING)

    assert reason == "publication p: only its owner postgres can change it"


def test_who_reads_the_slots_of_this_database_is_named(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(PLAIN + "CREATE PUBLICATION p FOR TABLE t")
    assert table_findings(database, "subscribed_publications") == []
    slot = f"{prefix(connection)}_reader"
    connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    try:
        (finding,) = table_findings(database, "subscribed_publications")
        assert not finding.refuses
        assert "published by p" in finding.message
        assert f"{slot} (nobody reads it now)" in finding.message
        connection.execute("DROP PUBLICATION p; CREATE PUBLICATION s FOR TABLES IN SCHEMA public")
        (finding,) = table_findings(database, "subscribed_publications")
        assert "published by s" in finding.message
        connection.execute("DROP PUBLICATION s; CREATE PUBLICATION o FOR TABLE other")
        assert table_findings(database, "subscribed_publications") == []
    finally:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE database = current_database()"
        )
