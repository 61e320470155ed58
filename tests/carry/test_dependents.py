"""Each kind of dependent is found by name, and a clean table has none."""

from __future__ import annotations

from types import ModuleType

import psycopg
import pytest

from restructure.shape.carry import (
    defaults,
    functions,
    inbound_keys,
    labels,
    materialized_views,
    others,
    policies,
    publications,
    row_security,
    row_types,
    rules,
    self_references,
    statistics,
    triggers,
    views,
)
from tests.carry.build import read

KINDS = (
    defaults,
    functions,
    inbound_keys,
    labels,
    materialized_views,
    others,
    policies,
    publications,
    row_security,
    row_types,
    rules,
    self_references,
    statistics,
    triggers,
    views,
)
CLEAN = """
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, parent int
    REFERENCES parent, a int CHECK (a > 0), b int GENERATED ALWAYS AS (a + 1) STORED,
    c text DEFAULT 'x', UNIQUE (a, c));
CREATE INDEX ON t (lower(c)); CREATE TABLE other (id int, a int DEFAULT nextval('t_n_seq'));
CREATE FUNCTION text_body() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
"""
PARTITIONED = """
CREATE TABLE t (id int, a int, c text, parent int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);
CREATE TABLE t_2 PARTITION OF t_1 FOR VALUES FROM (0) TO (9);
"""
CASES: list[tuple[ModuleType, str, list[str]]] = [
    (views, "CREATE VIEW v AS SELECT id FROM t", ["public.v"]),
    (views, "CREATE VIEW w AS SELECT NULL::t AS row_of_t", ["public.w"]),
    (views, 'CREATE VIEW "V v" AS SELECT t FROM t', ['public."V v"']),
    (materialized_views, "CREATE MATERIALIZED VIEW m AS SELECT id FROM t", ["public.m"]),
    (rules, "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", ["r on public.t"]),
    (
        rules,
        "CREATE RULE r AS ON DELETE TO other DO ALSO DELETE FROM t",
        ["r on public.other"],
    ),
    (
        inbound_keys,
        "CREATE TABLE child (t int CONSTRAINT child_t REFERENCES t)",
        ["child_t on public.child"],
    ),
    (
        self_references,
        "ALTER TABLE t ADD CONSTRAINT up FOREIGN KEY (a) REFERENCES t",
        ["up on public.t"],
    ),
    (
        triggers,
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire()",
        ["g on public.t"],
    ),
    (
        triggers,
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON other FROM t"
        " FOR EACH ROW EXECUTE FUNCTION fire()",
        ["g on public.other"],
    ),
    (policies, "CREATE POLICY p ON t USING (a > 0)", ["p on public.t"]),
    (
        policies,
        "CREATE POLICY p ON other USING (EXISTS (SELECT FROM t WHERE t.id = other.id))",
        ["p on public.other"],
    ),
    (row_security, "ALTER TABLE t ENABLE ROW LEVEL SECURITY", ["public.t"]),
    (row_security, "ALTER TABLE t FORCE ROW LEVEL SECURITY", ["public.t (FORCE)"]),
    (statistics, "CREATE STATISTICS s ON a, c FROM t", ["public.s"]),
    (publications, "CREATE PUBLICATION p FOR TABLE t (id)", ["p"]),
    (
        functions,
        "CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t; END",
        ["public.f()"],
    ),
    (
        functions,
        "CREATE FUNCTION f(t) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ["public.f(public.t)"],
    ),
    (
        functions,
        "CREATE FUNCTION f() RETURNS SETOF t LANGUAGE sql AS 'SELECT * FROM t'",
        ["public.f()"],
    ),
    (
        functions,
        "CREATE FUNCTION f(t[]) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ["public.f(public.t[])"],
    ),
    (
        defaults,
        "ALTER TABLE other ADD mine int DEFAULT nextval('t_id_seq')",
        ["for public.other.mine"],
    ),
    (
        defaults,
        "ALTER TABLE other ADD mine oid DEFAULT 't'::regclass::oid",
        ["for public.other.mine"],
    ),
    (row_types, "CREATE TABLE history (before t)", ["public.history"]),
    (row_types, "CREATE TABLE history (before t[])", ["public.history"]),
    (row_types, "CREATE TYPE pair AS (one t, two t)", ["public.pair"]),
    (row_types, "CREATE DOMAIN d AS t", ["public.d"]),
    (others, "CREATE INDEX i ON other ((id + 't'::regclass::oid::int))", ["public.i"]),
    (
        others,
        "ALTER TABLE other ADD CONSTRAINT k CHECK (id <> 't'::regclass::oid::int)",
        ["k on public.other"],
    ),
    (others, "CREATE CAST (t AS text) WITH INOUT", ["(public.t AS pg_catalog.text)"]),
]


@pytest.mark.parametrize("case", CASES, ids=[case[1][:60] for case in CASES])
def test_a_dependent_is_found_by_name_and_by_its_kind_alone(
    connection: psycopg.Connection, case: tuple[ModuleType, str, list[str]]
) -> None:
    kind, statement, expected = case
    connection.execute(CLEAN)
    connection.execute(statement)
    table = read(connection, "t")

    found = {module.__name__: [d.name for d in module.find(connection, table)] for module in KINDS}

    named = {name: names for name, names in found.items() if names}
    assert named == {kind.__name__: expected}


@pytest.mark.parametrize("script", [CLEAN, PARTITIONED], ids=["plain", "partitioned"])
def test_a_clean_table_has_no_dependents(connection: psycopg.Connection, script: str) -> None:
    connection.execute(script)
    table = read(connection, "t")

    assert [d for module in KINDS for d in module.find(connection, table)] == []


def test_what_hangs_on_a_single_partition_is_found_too_and_an_inherited_trigger_once(
    connection: psycopg.Connection,
) -> None:
    connection.execute(PARTITIONED)
    connection.execute("CREATE VIEW v AS SELECT id FROM t_2")
    connection.execute(
        "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    connection.execute("CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION fire()")
    connection.execute("CREATE TABLE child (t int CONSTRAINT child_t REFERENCES t)")
    table = read(connection, "t")

    assert [d.name for d in views.find(connection, table)] == ["public.v"]
    assert [d.name for d in triggers.find(connection, table)] == ["g on public.t"]
    assert [d.name for d in inbound_keys.find(connection, table)] == ["child_t on public.child"]


def test_a_security_label_is_found(connection: psycopg.Connection) -> None:
    """No label provider comes with the server, so its row is written by hand."""
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
    connection.execute("SET allow_system_table_mods = on")
    connection.execute(
        "INSERT INTO pg_seclabel VALUES ('t'::regclass, 'pg_class'::regclass, 1, 'p', 'secret')"
    )

    assert [d.name for d in labels.find(connection, read(connection, "t"))] == ["public.t (p)"]
