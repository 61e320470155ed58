"""Row-level security comes with the swap, and policies mean the new table wherever they stand."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import NotNow, OperatorNeeded
from tests.carry.build import dump
from tests.carry.reasons import reasons
from tests.carry.test_built_shadow import restructure
from tests.carry.test_swap import prefix

NOTHING = "ALTER COLUMN a SET DEFAULT 1"
PLAIN = """
CREATE SCHEMA restructure;
CREATE ROLE {p}_reader; CREATE ROLE {p}_writer;
CREATE TABLE tenants (id int PRIMARY KEY, name text);
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, boss int, owner text);
CREATE TABLE other (id int PRIMARY KEY, t int);
GRANT SELECT, INSERT ON t, other TO {p}_reader, {p}_writer; GRANT SELECT ON tenants TO {p}_reader;
"""
PARTITIONED = (
    PLAIN.replace("owner text);", "owner text) PARTITION BY RANGE (id);")
    + """
CREATE SCHEMA parts;
CREATE TABLE parts.t_low PARTITION OF t FOR VALUES FROM (0) TO (10);
CREATE TABLE t_high PARTITION OF t DEFAULT;
"""
)
COMMON = """
ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY "All of it" ON t;
CREATE POLICY own ON t FOR SELECT TO {p}_reader, {p}_writer USING (owner = CURRENT_USER);
CREATE POLICY add ON t AS RESTRICTIVE FOR INSERT TO PUBLIC WITH CHECK (a % 100 > 0 AND owner <> '100%');
CREATE POLICY alter ON t FOR UPDATE USING (a > 0) WITH CHECK (a > 1);
CREATE POLICY remove ON t AS RESTRICTIVE FOR DELETE USING (false);
CREATE POLICY boss ON t FOR SELECT TO {p}_reader
    USING (EXISTS (SELECT FROM t up WHERE up.id = t.boss AND up.owner = CURRENT_USER)
           OR a IN (SELECT tenants.id FROM tenants WHERE name = CURRENT_USER));
COMMENT ON POLICY own ON t IS 'it''s 100% theirs';
ALTER TABLE other ENABLE ROW LEVEL SECURITY;
CREATE POLICY through ON other FOR ALL TO {p}_reader
    USING (EXISTS (SELECT FROM t WHERE t.id = other.t)) WITH CHECK (t IN (SELECT t.id FROM t));
COMMENT ON POLICY through ON other IS 'kept';
"""
ON_PARTITIONS = """
ALTER TABLE parts.t_low ENABLE ROW LEVEL SECURITY;
ALTER TABLE t_high FORCE ROW LEVEL SECURITY;
CREATE POLICY low ON parts.t_low USING (t_low.id IN (SELECT id FROM t));
"""


@pytest.mark.parametrize(
    "script",
    [PLAIN + COMMON, PARTITIONED + COMMON + ON_PARTITIONS],
    ids=["plain", "partitioned"],
)
def test_every_variant_is_carried_and_a_dump_is_the_same(
    server: Server, database: str, connection: psycopg.Connection, script: str
) -> None:
    connection.execute(script.format(p=prefix(connection)))
    before = dump(server, database), flags(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), flags(connection)) == before
    bound = connection.execute(
        "SELECT polname FROM pg_policy p JOIN pg_class c ON c.oid = polrelid"
        " JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid"
        " JOIN pg_class o ON o.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass"
        " WHERE c.relnamespace <> 'restructure_job_retired'::regnamespace"
        " AND o.relnamespace = 'restructure_job_retired'::regnamespace"
    ).fetchall()
    assert bound == []


def flags(connection: psycopg.Connection) -> list[list[tuple[object, ...]]]:
    """What a dump of one schema does not show."""
    policies = "SELECT * FROM pg_policies ORDER BY schemaname, tablename, policyname"
    switches = (
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relnamespace::regnamespace::text IN ('public', 'parts') AND relkind IN ('r', 'p')"
        " ORDER BY 1"
    )
    found = connection.execute(policies).fetchall()
    return [
        [row for row in found if "restructure" not in row[0]],
        connection.execute(switches).fetchall(),
    ]


def test_policies_here_and_elsewhere_ask_the_new_table(connection: psycopg.Connection) -> None:
    reader = f"{prefix(connection)}_reader"
    connection.execute((PLAIN + COMMON).format(p=prefix(connection)))
    connection.execute('DROP POLICY "All of it" ON t')

    restructure(connection, "public.t", NOTHING)

    connection.execute(
        f"INSERT INTO t VALUES (1, 1, NULL, '{reader}'), (2, 1, 1, 'x'), (3, 1, NULL, 'x');"
        "INSERT INTO other VALUES (1, 2), (2, 3)"
    )
    connection.execute(f"SET ROLE {reader}")
    assert connection.execute("SELECT current_setting('row_security')").fetchone() == ("on",)
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="infinite recursion"):
        connection.execute("SELECT id FROM t")
    connection.execute("RESET ROLE; DROP POLICY boss ON t")
    connection.execute(f"SET ROLE {reader}")
    assert connection.execute("SELECT id FROM t").fetchall() == [(1,)]
    connection.execute("RESET ROLE; CREATE POLICY two ON t USING (id < 3)")
    connection.execute(f"SET ROLE {reader}")
    assert connection.execute("SELECT id FROM other").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("made", "clause", "named"),
    [
        (
            "ON t USING (owner = 'x')",
            "DROP COLUMN owner",
            "policy p on public.t: it uses column owner",
        ),
        ("ON t USING (a > 0)", "ALTER COLUMN a TYPE text", "policy p on public.t: operator does"),
        ("ON t USING (owner = 'x')", "RENAME COLUMN owner TO boss_name", "called boss_name"),
        (
            "ON other USING (EXISTS (SELECT FROM t WHERE a > 0))",
            "ALTER COLUMN a TYPE text",
            "policy p on public.other: operator does not exist",
        ),
        (
            "ON other USING (EXISTS (SELECT FROM t WHERE owner > ''))",
            "DROP COLUMN owner",
            "policy p on public.other: it uses column owner",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    connection: psycopg.Connection, made: str, clause: str, named: str
) -> None:
    connection.execute(PLAIN.format(p=prefix(connection)) + f"CREATE POLICY p {made}")

    (reason,) = reasons(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)

    assert named in reason
    with pytest.raises((OperatorNeeded, psycopg.errors.UndefinedFunction)):
        restructure(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)


def test_a_rehearsal_waits_for_nobody_who_uses_another_table(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute((PLAIN + COMMON).format(p=prefix(connection)))
    with psycopg.connect(database) as writer:
        writer.execute("LOCK TABLE other, tenants IN EXCLUSIVE MODE")
        assert reasons(connection, "public.t", NOTHING) == []
        writer.execute("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotNow, match="lock timeout"):
            reasons(connection, "public.t", NOTHING)


def test_only_the_owner_of_the_other_table_can_bind_its_policy_anew(
    database: str, connection: psycopg.Connection
) -> None:
    name = prefix(connection)
    connection.execute((PLAIN + COMMON).format(p=name))
    connection.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret' BYPASSRLS; ALTER TABLE t OWNER TO {name};"
        f"GRANT SELECT ON tenants, other TO {name}; GRANT CREATE ON DATABASE {name} TO {name};"
        f"GRANT CREATE ON SCHEMA public TO {name}; GRANT {name}_reader TO {name}"
    )
    dsn = psycopg.conninfo.make_conninfo(database, user=name, password="secret")

    with psycopg.connect(dsn, autocommit=True) as worker:
        (reason,) = reasons(worker, "public.t", NOTHING)

    assert reason == "policy through on public.other: only the owner of public.other can change it"
