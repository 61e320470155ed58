"""What is bound to the table and lies elsewhere: carried, or refused by its name."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from tests.carry.reading import (
    ORDERS,
    carry,
    composed,
    made,
    one,
    reasons,
    refused,
    whole_dump,
)
from tests.shape_workbench import plan

DEFAULTS = """
CREATE TABLE log (id int DEFAULT nextval('orders_id_seq'), what oid DEFAULT 'orders'::regclass::oid,
    "How %" text DEFAULT '100%' || 'orders'::regclass::text);
CREATE TABLE report.parent (id int, what oid DEFAULT 'orders'::regclass::oid) PARTITION BY LIST (id);
CREATE TABLE report.child PARTITION OF report.parent (what DEFAULT 7) FOR VALUES IN (1);
CREATE VIEW report.elsewhere AS SELECT * FROM log;
ALTER VIEW report.elsewhere ALTER what SET DEFAULT 'orders'::regclass::oid;
CREATE FUNCTION tag(orders) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TABLE tagged (tag int DEFAULT tag(NULL::orders));
"""


def test_defaults_elsewhere_mean_the_new_table(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(ORDERS)
    connection.execute(DEFAULTS)
    before = whole_dump(server, database)
    assert refused(connection) == []
    assert reasons(connection) == []

    carry(connection)

    assert whole_dump(server, database) == before
    connection.execute("INSERT INTO log DEFAULT VALUES; INSERT INTO report.parent (id) VALUES (1)")
    assert one(connection, "SELECT what = 'orders'::regclass::oid FROM log") is True
    assert one(connection, "SELECT id > 5 FROM log") is True
    connection.execute("DROP SCHEMA restructure_job_retired CASCADE")
    assert whole_dump(server, database) == before


def test_the_tables_of_defaults_are_among_the_locks_that_are_wanted(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(DEFAULTS)
    source, shadow = made(connection)

    wanted = {str(w.relation): w for w in composed(connection, source, shadow).wanted}

    assert {wanted[f"public.{name}"].mode for name in ("log", "tagged")} == {"ACCESS EXCLUSIVE"}
    assert wanted["report.parent"].lockable
    assert not wanted["report.elsewhere"].lockable


def test_a_default_that_no_longer_fits_is_refused_by_name(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(DEFAULTS)

    found = reasons(connection, plan("orders", alter=["ALTER COLUMN id DROP IDENTITY"]))

    (reason,) = found
    assert reason.startswith(
        "default of public.log.id: it would go on using the old public.orders_id_seq"
    )


REFUSED = {
    "CREATE TABLE history (before orders)": "public.history",
    "CREATE TABLE history (before orders[])": "public.history",
    "CREATE TYPE pair AS (one orders, two orders)": "public.pair",
    "CREATE DOMAIN d AS orders": "public.d",
    "CREATE DOMAIN d AS orders[]": "public.d",
    "CREATE CAST (orders AS text) WITH INOUT": "(public.orders AS pg_catalog.text)",
    "CREATE FUNCTION eq(orders, int) RETURNS bool LANGUAGE sql AS 'SELECT true';"
    "CREATE OPERATOR === (LEFTARG = orders, RIGHTARG = int, FUNCTION = eq)":
        "public.===(public.orders,integer)",
    "CREATE AGGREGATE collect(orders) (SFUNC = array_append, STYPE = orders[])":
        "public.collect(public.orders)",
    "CREATE FUNCTION add(int, orders) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "CREATE AGGREGATE total(orders) (SFUNC = add, STYPE = int)": "public.total(public.orders)",
    "CREATE INDEX i ON customers ((id + 'orders'::regclass::oid::int))": "public.i",
    "ALTER TABLE customers ADD CONSTRAINT k CHECK (id <> 'orders'::regclass::oid::int)":
        "k on public.customers",
    "ALTER TABLE customers ADD g oid GENERATED ALWAYS AS ('orders'::regclass::oid) STORED":
        "for public.customers.g",
    "CREATE DOMAIN d AS int CHECK (VALUE <> 'orders'::regclass::oid::int)": "d_check on public.d",
    # on what reads the table
    "CREATE VIEW v AS SELECT * FROM orders; CREATE TABLE history (v v)": "public.history",
    "CREATE VIEW v AS SELECT * FROM orders; CREATE DOMAIN d AS v": "public.d",
    "CREATE FUNCTION f(orders) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';"
    "CREATE INDEX i ON customers ((id + f(NULL)))": "public.i",
    "CREATE MATERIALIZED VIEW m AS SELECT * FROM orders; CREATE STATISTICS s ON id, note FROM m":
        "public.s",
    "CREATE VIEW v AS SELECT * FROM orders; ALTER EXTENSION plpgsql ADD VIEW v":
        "public.v (belongs to extension plpgsql)",
    "CREATE FUNCTION f(orders) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "ALTER FUNCTION f DEPENDS ON EXTENSION plpgsql":
        "public.f(public.orders) (belongs to extension plpgsql)",
    "CREATE MATERIALIZED VIEW m AS SELECT * FROM orders; CREATE INDEX i ON m (id);"
    "ALTER INDEX i DEPENDS ON EXTENSION plpgsql": "public.m (index i depends on an extension)",
    "CREATE VIEW v AS SELECT * FROM orders; SET allow_system_table_mods = on;"
    "INSERT INTO pg_seclabel VALUES ('v'::regclass, 'pg_class'::regclass, 1, 'p', 'secret')":
        "public.v (has a security label for p)",
    "CREATE FUNCTION f(orders) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    "SET allow_system_table_mods = on;"
    "INSERT INTO pg_seclabel VALUES ('f'::regproc, 'pg_proc'::regclass, 0, 'p', 'secret')":
        "public.f(public.orders) (has a security label for p)",
}  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_what_cannot_be_carried_is_refused_by_name(
    connection: psycopg.Connection, statement: str
) -> None:
    connection.execute(ORDERS)
    assert refused(connection) == []

    connection.execute(statement)

    assert REFUSED[statement] in refused(connection)
