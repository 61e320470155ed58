"""Keys of every kind: their changes arrive whatever the type, its equality and where it is stored."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import PreflightRefused
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from tests.pipeline.shapes import (
    ask_for_cutover,
    assert_transformed,
    count,
    one,
    plan,
    restructure,
    run,
)
from tests.pipeline.tool import Tool

ANY = "(SELECT k FROM t ORDER BY random() LIMIT 1)"


def test_a_composite_key_of_uuid_and_timestamp(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (at timestamptz, id uuid, v int, PRIMARY KEY (id, at));
        INSERT INTO t SELECT now() - n * interval '1 us', gen_random_uuid(), n FROM generate_series(1, 3000) n
        """,
    )
    some = "(at, id) = (SELECT at, id FROM t ORDER BY random() LIMIT 1)"
    restructure(
        database,
        plan(
            "t",
            alter=["ALTER v TYPE bigint", "ADD day date"],
            columns={"day": "(at at time zone 'UTC')::date"},
        ),
        f"UPDATE t SET v = v + 1 WHERE {some}",
        f"UPDATE t SET at = at - interval '1 day' WHERE {some}",
        f"UPDATE t SET id = gen_random_uuid() WHERE {some}",
        f"DELETE FROM t WHERE {some}",
        "INSERT INTO t VALUES ('infinity', gen_random_uuid(), 7), ('-infinity', gen_random_uuid(), 8)",
    )
    assert_transformed(connection, "t", "at, id, v, (at at time zone 'UTC')::date")


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_long_key_stored_out_of_line_and_not_touched(
    database: str, connection: psycopg.Connection, identity: str
) -> None:
    """An update that leaves such a key alone sends a placeholder for it with the new row."""
    run(
        connection,
        f"""
        CREATE TABLE t (k text PRIMARY KEY, v int);
        ALTER TABLE t ALTER k SET STORAGE EXTERNAL, REPLICA IDENTITY {identity};
        INSERT INTO t SELECT n || string_agg(md5(n || ' ' || m), ''), n
          FROM generate_series(1, 150) n, generate_series(1, 78) m GROUP BY n
        """,
    )
    assert one(
        connection,
        "SELECT pg_relation_size(reltoastrelid) > 300000 FROM pg_class WHERE oid = 't'::regclass",
    )
    restructure(
        database,
        plan("t", alter=["ALTER v TYPE bigint"]),
        f"UPDATE t SET v = v + 1 WHERE k = {ANY}",
        f"UPDATE t SET k = k || 'x' WHERE k = {ANY}",
    )
    assert_transformed(connection, "t", "k, v::bigint")


def test_equal_numbers_of_different_form_are_one_key(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (k numeric PRIMARY KEY, v int);
        INSERT INTO t SELECT n::numeric(20,1), n FROM generate_series(1, 500) n;
        INSERT INTO t VALUES ('NaN', 1), ('Infinity', 2), ('-Infinity', 3)
        """,
    )
    restructure(
        database,
        plan("t", alter=["ALTER v TYPE bigint"]),
        "UPDATE t SET k = 1.00 WHERE k = 1.0; UPDATE t SET v = v + 1 WHERE k = 'NaN'",
        "UPDATE t SET k = 1.000 WHERE k = 1",
        f"UPDATE t SET k = k + 0.00000 WHERE k = {ANY}",
        f"UPDATE t SET v = v + 1 WHERE k = {ANY}",
        f"WITH gone AS (DELETE FROM t WHERE k = {ANY} RETURNING *) SELECT",
        "DELETE FROM t WHERE k = 7; INSERT INTO t VALUES (7.0000, 7) ON CONFLICT DO NOTHING",
    )
    assert_transformed(connection, "t", "k, v::bigint")


KINDS = {
    "bytea": ("bytea", r"decode(md5(n::text), 'hex')", r"k || '\x00'"),
    "enum": ("mood", "('m' || n)::mood", "k"),
    "domain": ("code", "n::text", "(k || 'x')::code"),
    "domain of a domain": ("short_code", "n::text", "(k || 'x')::short_code"),
    "float": ("float8", "(ARRAY['-0', 'NaN', 'Infinity', '1e-300', (n / 7.0)::text])[least(n, 5)]::float8", "-k"),
    "date": ("date", "(ARRAY['-infinity', 'infinity', (n + DATE 'epoch')::text])[least(n, 3)]::date", "k + 100000"),
    "char": ("char(12)", "n::text", "k || 'x'"),
    "bit": ("varbit", "n::bit(16)::varbit", "k || B'1'"),
    "array": ("int[]", "ARRAY[n, NULL]", "k || 1"),
    "composite": ("pair", "ROW(n, NULL)::pair", "ROW((k).a, (k).a)::pair"),
    "range": ("int4range", "int4range(n, n + 5)", "int4range(lower(k), upper(k) + 1)"),
    "money": ("money", "n::money", "k + '10000'::money"),
    "tsvector": ("tsvector", "to_tsvector('simple', n::text)", "k || 'x'::tsvector"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_any_type(database: str, connection: psycopg.Connection, kind: str) -> None:
    """A backlog is divided by hash, which not all types have; what follows it is not divided."""
    type_sql, value, other = KINDS[kind]
    run(
        connection,
        """
        CREATE DOMAIN code AS text NOT NULL CHECK (VALUE <> '');
        CREATE DOMAIN short_code AS code CHECK (length(VALUE) < 200);
        CREATE TYPE pair AS (a int, b int);
        DO $$ BEGIN EXECUTE 'CREATE TYPE mood AS ENUM ('
          || (SELECT string_agg(quote_literal('m' || n), ',') FROM generate_series(1, 2200) n) || ')'; END $$
        """,
    )
    run(
        connection,
        f"""
        CREATE TABLE t (k {type_sql} PRIMARY KEY, v int);
        INSERT INTO t SELECT {value}, n FROM generate_series(1, 2200) n
        """,
    )
    text = plan("t", alter=["ALTER v TYPE bigint"])
    with Tool(database, text, Wish(stay=True), hold="catchup entered") as tool:
        tool.held()
        run(connection, f"UPDATE t SET k = {other}, v = -v WHERE v < 50; UPDATE t SET v = v + 1")
        tool.until(lambda: count(connection, "SELECT count(*) FROM restructure.spool_shape") > 2000)
        tool.release()
        tool.wait_for_phase(Phase.READY)
        run(
            connection,
            f"DELETE FROM t WHERE v BETWEEN 60 AND 90; UPDATE t SET k = {other} WHERE v BETWEEN 100 AND 110",
        )
        ask_for_cutover(connection)
        tool.finish()
    assert_transformed(connection, "t", "k, v::bigint")


def test_a_truncated_table_whose_key_may_not_be_null(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE DOMAIN code AS text NOT NULL CHECK (VALUE IS NOT NULL);
        CREATE TABLE t (k code PRIMARY KEY, v int);
        INSERT INTO t SELECT n, n FROM generate_series(1, 900) n
        """,
    )
    with Tool(database, plan("t", alter=["ALTER v TYPE bigint"]), hold="ready entered") as tool:
        tool.held()
        run(connection, "TRUNCATE t; INSERT INTO t SELECT n, n FROM generate_series(1, 30) n")
        tool.finish()
    assert_transformed(connection, "t", "k, v::bigint")


def test_a_key_whose_collation_takes_different_texts_for_equal(
    database: str, connection: psycopg.Connection
) -> None:
    try:
        run(
            connection,
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this build of PostgreSQL has no ICU")
    run(
        connection,
        """
        CREATE TABLE t (k text COLLATE nocase PRIMARY KEY, v int);
        INSERT INTO t SELECT 'key' || n, n FROM generate_series(1, 900) n
        """,
    )
    restructure(
        database,
        plan("t", alter=["ALTER v TYPE bigint"]),
        f"UPDATE t SET v = v + 1 WHERE k = {ANY}",
        f"UPDATE t SET k = upper(k) WHERE k = {ANY}",
        f"UPDATE t SET k = initcap(k), v = v + 1 WHERE k = {ANY}",
        "DELETE FROM t WHERE k = 'key3'; INSERT INTO t VALUES ('KeY3', 0) ON CONFLICT DO NOTHING",
    )
    assert_transformed(connection, "t", "k, v::bigint")


def test_a_key_of_citext(database: str, connection: psycopg.Connection) -> None:
    if not one(connection, "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this build of PostgreSQL comes without citext")
    run(
        connection,
        """
        CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions;
        CREATE TABLE t (k extensions.citext PRIMARY KEY, v int);
        INSERT INTO t SELECT 'key' || n, n FROM generate_series(1, 900) n
        """,
    )
    path = "SET LOCAL search_path = public, extensions; "
    restructure(
        database,
        plan("t", alter=["ALTER v TYPE bigint"]),
        path + f"UPDATE t SET k = upper(k::text) WHERE k = {ANY}",
        path + f"UPDATE t SET v = v + 1 WHERE k = {ANY}",
        path
        + "DELETE FROM t WHERE k = 'key3'; INSERT INTO t VALUES ('KeY3', 0) ON CONFLICT DO NOTHING",
    )
    assert_transformed(connection, "t", "k, v::bigint")


@pytest.mark.parametrize("identity", ["FULL", "USING INDEX t_code"])
def test_another_replica_identity(
    database: str, connection: psycopg.Connection, identity: str
) -> None:
    run(
        connection,
        f"""
        CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL, v int, wide int GENERATED ALWAYS AS (v * 2) STORED);
        CREATE UNIQUE INDEX t_code ON t (code) INCLUDE (v);
        ALTER TABLE t REPLICA IDENTITY {identity};
        INSERT INTO t SELECT n, 'c' || n, n FROM generate_series(1, 1000) n
        """,
    )
    some = "id = (SELECT id FROM t ORDER BY random() LIMIT 1)"
    restructure(
        database,
        plan("t", alter=["ALTER id TYPE bigint"]),
        f"UPDATE t SET v = v + 1 WHERE {some}",
        f"UPDATE t SET id = id + 100000, code = code || 'x' WHERE {some} AND id < 100000",
        f"DELETE FROM t WHERE {some}",
    )
    assert_transformed(connection, "t", "id::bigint, code, v, wide")
    kept = "f" if identity == "FULL" else "i"
    assert (
        one(connection, "SELECT relreplident::text FROM pg_class WHERE oid = 't'::regclass") == kept
    )


@pytest.mark.parametrize(
    "key",
    ["id int PRIMARY KEY DEFERRABLE", "id int UNIQUE", "id int"],
    ids=["deferrable", "nullable", "none"],
)
def test_a_table_without_a_usable_key_is_refused(
    database: str, connection: psycopg.Connection, key: str
) -> None:
    run(connection, f"CREATE TABLE t ({key}, v int); INSERT INTO t VALUES (1, 1)")
    with pytest.raises(PreflightRefused, match="primary key"):
        restructure(database, plan("t", alter=["ALTER v TYPE bigint"]))
    assert (
        one(
            connection,
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()",
        )
        == 0
    )
