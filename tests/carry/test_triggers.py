"""Triggers come with the swap, whole and in their state; what does not fit is refused by name."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from tests.carry.build import dump
from tests.carry.reasons import reasons
from tests.carry.test_built_shadow import restructure

NOTHING = "ALTER COLUMN a SET DEFAULT 1"
PLAIN = """
CREATE SCHEMA restructure;
CREATE TABLE seen (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO seen VALUES (TG_NAME || '' '' || TG_OP || coalesce(TG_ARGV[0], ''''));
     RETURN coalesce(NEW, OLD); END';
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, c text);
"""
PARTITIONED = (
    PLAIN.replace("c text);", "c text) PARTITION BY RANGE (id);")
    + """
CREATE SCHEMA parts;
CREATE TABLE parts.t_low PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE parts.t_lowest PARTITION OF parts.t_low FOR VALUES FROM (0) TO (5);
CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20);
"""
)
COMMON = """
CREATE TRIGGER by_row AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note(' it''s 100%', 'b');
CREATE TRIGGER by_column BEFORE UPDATE OF c, a ON t FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.* AND NEW.a > 0) EXECUTE FUNCTION note();
CREATE TRIGGER by_statement AFTER INSERT OR DELETE OR TRUNCATE ON t EXECUTE FUNCTION note();
CREATE TRIGGER "With Tables" AFTER UPDATE ON t REFERENCING OLD TABLE AS "before" NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.a IS NOT NULL) EXECUTE FUNCTION note();
CREATE CONSTRAINT TRIGGER from_other AFTER INSERT ON t FROM seen DEFERRABLE
    FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER replica AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER never AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE t ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica, DISABLE TRIGGER never;
COMMENT ON TRIGGER by_row ON t IS 'it''s 100% audited';
ALTER TRIGGER by_row ON t DEPENDS ON EXTENSION plpgsql;
"""
ON_PLAIN = """
CREATE TRIGGER moved AFTER UPDATE ON t REFERENCING OLD TABLE AS o FOR EACH ROW
    EXECUTE FUNCTION note();
"""
ON_PARTITIONS = """
CREATE TRIGGER own AFTER DELETE ON parts.t_lowest FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE parts.t_lowest ENABLE REPLICA TRIGGER own;
COMMENT ON TRIGGER own ON parts.t_lowest IS 'of a leaf';
ALTER TABLE parts.t_low ENABLE ALWAYS TRIGGER by_column;
ALTER TABLE parts.t_lowest DISABLE TRIGGER by_column;
ALTER TABLE t_high ENABLE TRIGGER never;
"""


@pytest.mark.parametrize(
    "script",
    [PLAIN + COMMON + ON_PLAIN, PARTITIONED + COMMON + ON_PARTITIONS],
    ids=["plain", "partitioned"],
)
def test_every_variant_is_carried_and_a_dump_is_the_same(
    server: Server, database: str, connection: psycopg.Connection, script: str
) -> None:
    connection.execute(script)
    before = dump(server, database), states(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), states(connection)) == before


def states(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    """Also what no dump shows: a partition's own state, and whether what is made depends on an extension."""
    return connection.execute(
        "SELECT tgrelid::regclass::text, tgname, tgenabled, tgparentid <> 0,"
        " (SELECT count(*) FROM pg_depend WHERE objid = g.oid AND deptype = 'x'),"
        " obj_description(g.oid, 'pg_trigger') FROM pg_trigger g JOIN pg_class c ON c.oid = tgrelid"
        " WHERE NOT tgisinternal AND relnamespace::regnamespace::text IN ('public', 'parts')"
        " ORDER BY 1, 2"
    ).fetchall()


def test_a_trigger_acts_on_the_new_table_and_not_on_the_old_one(
    connection: psycopg.Connection,
) -> None:
    connection.execute(PLAIN + COMMON + ON_PLAIN)
    restructure(connection, "public.t", NOTHING)
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("SET restructure.reverse = 'on'")
    connection.execute("INSERT INTO restructure_job_retired.t VALUES (1)")

    seen = connection.execute("SELECT what FROM seen ORDER BY 1").fetchall()
    assert [what for (what,) in seen] == [
        "always INSERT",
        "by_row INSERT it's 100%",
        "by_statement INSERT",
        "from_other INSERT",
        "late INSERT",
    ]


def test_nothing_on_the_shadow_fires_before_the_swap(connection: psycopg.Connection) -> None:
    connection.execute(PLAIN + COMMON)

    assert list(reasons(connection, "public.t", NOTHING)) == []
    assert connection.execute("SELECT * FROM seen").fetchall() == []


@pytest.mark.parametrize(
    ("made", "clause", "named"),
    [
        (
            "CREATE TRIGGER g AFTER UPDATE OF c ON t EXECUTE FUNCTION note()",
            "DROP COLUMN c",
            ["trigger g on public.t", "column c"],
        ),
        (
            "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.c = '') EXECUTE FUNCTION note()",
            "RENAME COLUMN c TO d",
            ["trigger g on public.t", "column c", "called d"],
        ),
        (
            "CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.a > 0) EXECUTE FUNCTION note()",
            "ALTER COLUMN a TYPE text",
            ["trigger g on public.t", "text > integer"],
        ),
        (
            "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON seen FROM t FOR EACH ROW"
            " EXECUTE FUNCTION note()",
            NOTHING,
            ["trigger g on public.seen", "another table's"],
        ),
    ],
    ids=["dropped column", "renamed column", "retyped column", "another table's"],
)
def test_what_does_not_fit_is_refused_by_name(
    connection: psycopg.Connection, made: str, clause: str, named: list[str]
) -> None:
    connection.execute(PLAIN + made)

    (reason,) = reasons(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)
    assert all(word in reason for word in named), reason
    with pytest.raises(
        (OperatorNeeded, psycopg.errors.UndefinedFunction), match=r"g on|text > integer"
    ):
        restructure(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)


def test_a_trigger_of_a_partition_that_goes_is_refused(connection: psycopg.Connection) -> None:
    connection.execute(PARTITIONED + ON_PARTITIONS.splitlines()[1])

    (reason,) = reasons(
        connection, "public.t", create="CREATE TABLE t (id int PRIMARY KEY, a int, c text)"
    )
    assert "trigger own on parts.t_lowest" in reason
    assert "no partition t_lowest" in reason


def test_a_partition_whose_name_means_another_table_first_is_refused(
    connection: psycopg.Connection,
) -> None:
    """Its trigger would be made on that one, and not on the shadow's, when it is rehearsed."""
    connection.execute(
        PARTITIONED.replace(
            "CREATE TABLE parts.t_low",
            "CREATE SCHEMA first; CREATE TABLE first.t_null PARTITION OF t DEFAULT;"
            "CREATE TABLE first.t_lowest (LIKE t); CREATE TABLE parts.t_low",
            1,
        )
        + ON_PARTITIONS.splitlines()[1]
    )

    (reason,) = reasons(connection, "public.t", NOTHING)

    assert reason == (
        "trigger own on parts.t_lowest: parts.t_lowest is hidden by another table of that name"
    )
