"""Rules come with the swap, and those of other tables write to the new table."""

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
CREATE SCHEMA restructure; CREATE SCHEMA side;
CREATE TABLE seen (what text); CREATE TABLE "Other t" (id int); CREATE TABLE side.other (id int);
CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, c text);
"""
RULES = """
CREATE RULE "Note it" AS ON INSERT TO t DO ALSO
    (INSERT INTO seen VALUES ('in; 100%'); INSERT INTO seen SELECT NEW.c FROM t LIMIT 1);
CREATE RULE skip AS ON UPDATE TO t WHERE NEW.a <> OLD.a DO INSTEAD NOTHING;
CREATE RULE forever AS ON DELETE TO t DO INSTEAD UPDATE t SET c = 'gone' WHERE id = OLD.id;
CREATE RULE off AS ON DELETE TO t DO ALSO NOTIFY t; ALTER TABLE t DISABLE RULE off;
CREATE RULE on_replica AS ON DELETE TO t DO ALSO NOTIFY t; ALTER TABLE t ENABLE REPLICA RULE on_replica;
CREATE RULE always AS ON INSERT TO t DO ALSO NOTIFY t; ALTER TABLE t ENABLE ALWAYS RULE always;
COMMENT ON RULE skip ON t IS 'it''s 100% so';
CREATE RULE "a TO b" AS ON DELETE TO "Other t" DO ALSO DELETE FROM t WHERE t.id = OLD.id;
CREATE RULE far AS ON INSERT TO side.other DO INSTEAD INSERT INTO t VALUES (NEW.id);
ALTER TABLE side.other ENABLE ALWAYS RULE far; COMMENT ON RULE far ON side.other IS 'kept';
"""


def test_every_variant_is_carried_and_a_dump_is_the_same(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(PLAIN + RULES)
    before = dump(server, database), rules(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), rules(connection)) == before
    connection.execute("DROP RULE forever ON t; INSERT INTO side.other VALUES (7), (8)")
    connection.execute('INSERT INTO "Other t" VALUES (7)')
    connection.execute('DELETE FROM "Other t"')
    assert connection.execute("SELECT id FROM t").fetchall() == [(8,)]


def rules(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT ev_class::regclass::text, rulename, ev_enabled, obj_description(r.oid, 'pg_rewrite'),"
        " pg_get_ruledef(r.oid) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class"
        " WHERE relnamespace::regnamespace::text IN ('public', 'side') ORDER BY 1, 2"
    ).fetchall()


def test_a_rule_of_a_partition_is_carried(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        PLAIN.replace("c text);", "c text) PARTITION BY RANGE (id);")
        + "CREATE TABLE side.t_low PARTITION OF t FOR VALUES FROM (0) TO (9);"
        "CREATE RULE r AS ON DELETE TO side.t_low DO INSTEAD NOTHING;"
        "CREATE RULE s AS ON UPDATE TO t DO ALSO NOTIFY t;"
    )
    before = dump(server, database), rules(connection)

    restructure(connection, "public.t", NOTHING)

    assert (dump(server, database), rules(connection)) == before


@pytest.mark.parametrize(
    ("made", "clause", "named"),
    [
        (
            "r AS ON UPDATE TO t WHERE NEW.c = '' DO INSTEAD NOTHING",
            "DROP COLUMN c",
            "rule r on public.t: it uses column c",
        ),
        (
            "r AS ON UPDATE TO t WHERE NEW.a > 0 DO INSTEAD NOTHING",
            "ALTER COLUMN a TYPE text",
            "rule r on public.t: operator does not exist",
        ),
        (
            "r AS ON DELETE TO side.other DO ALSO DELETE FROM t WHERE a > 0",
            "ALTER COLUMN a TYPE text",
            "rule r on side.other: operator does not exist",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    connection: psycopg.Connection, made: str, clause: str, named: str
) -> None:
    connection.execute(PLAIN + f"CREATE RULE {made}")

    (reason,) = reasons(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)

    assert named in reason
    with pytest.raises((OperatorNeeded, psycopg.errors.UndefinedFunction)):
        restructure(connection, "public.t", "ALTER COLUMN a DROP DEFAULT", clause)
