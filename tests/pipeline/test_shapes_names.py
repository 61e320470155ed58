"""Names and expressions that could be taken for something else: ours, psycopg's or SQL's own."""

from __future__ import annotations

import psycopg
import pytest

from tests.pipeline.shapes import assert_transformed, one, plan, restructure, run

OURS = [
    *("k1", "o1", "f1", "d", "o", "new", "old", "present"),
    *("xid", "id", "ctid_", "truncated", "committed", "dirty", "taken", "settled"),
    *("low", "high", "part", "number", "sqlstate", "reason", "at", "source"),
    *("target", "t", "restructure_new", "restructure_old"),
]


def test_columns_named_like_words_of_our_own_statements(
    database: str, connection: psycopg.Connection
) -> None:
    columns = ", ".join(f'"{name}" int' for name in OURS)
    run(
        connection,
        f"""
        CREATE TABLE t ({columns}, PRIMARY KEY (present, k1, xid));
        INSERT INTO t SELECT {", ".join(f"n + {i}" for i in range(len(OURS)))} FROM generate_series(1, 500) n
        """,
    )
    some = "(k1, xid) = (SELECT k1, xid FROM t ORDER BY random() LIMIT 1)"
    restructure(
        database,
        plan(
            "t",
            alter=["ALTER k1 TYPE bigint", "ALTER f1 TYPE bigint", "ADD k2 text", "ADD f2 bigint"],
            columns={
                "k2": "k1 || '/' || o1",
                "f2": 'd + o + new + old + present + t.t + "number"',
                "o1": "o1 - f1",
            },
            where="present + d > 20 AND old <> 40",
        ),
        f"UPDATE t SET o1 = o1 + 1, d = d + 1, old = old + 1 WHERE {some}",
        f"UPDATE t SET k1 = k1 + 10000, present = present + 10000 WHERE {some} AND k1 < 10000",
        f"DELETE FROM t WHERE {some}",
    )
    old = ", ".join("o1 - f1" if name == "o1" else f'"{name}"' for name in OURS)
    assert_transformed(
        connection,
        "t",
        f"{old}, k1 || '/' || o1, d + o + new + old + present + t.t + \"number\"",
        where="present + d > 20 AND old <> 40",
    )


TABLES = ("new", "old", "d", "o", "restructure_new", "select", "OLD")


@pytest.mark.parametrize("table", TABLES)
def test_tables_named_like_words_of_our_own_statements(
    database: str, connection: psycopg.Connection, table: str
) -> None:
    run(
        connection,
        f"""
        CREATE TABLE "{table}" (id int PRIMARY KEY, v int, d int);
        INSERT INTO "{table}" SELECT n, n, n FROM generate_series(1, 200) n
        """,
    )
    some = f'id = (SELECT id FROM "{table}" ORDER BY random() LIMIT 1)'
    restructure(
        database,
        plan(
            f'"{table}"',
            alter=["ALTER id TYPE bigint", "ADD sum int"],
            columns={"sum": f'"{table}".v + d'},
            where=f'"{table}".id > 3',
        ),
        f'UPDATE "{table}" SET v = v + 1 WHERE {some}',
        f'DELETE FROM "{table}" WHERE {some}',
        f'UPDATE "{table}" SET id = id + 1000 WHERE {some} AND id < 1000',
        writes=20,
    )
    assert_transformed(connection, f'"{table}"', "id, v, d, v + d", where="id > 3")


SCHEMA = 'My "odd" schema, 100% {0} %s'
TABLE = "Bestellungen % {} %(x)s 漢字; --"
KEY = 'the key\'s "name" %s'
VALUE = "wert {0} %"


def test_names_with_spaces_quotes_percent_signs_and_braces(
    database: str, connection: psycopg.Connection
) -> None:
    schema, table, key, value = (
        '"' + name.replace('"', '""') + '"' for name in (SCHEMA, TABLE, KEY, VALUE)
    )
    full = f"{schema}.{table}"
    run(
        connection,
        f"""
        CREATE SCHEMA {schema};
        CREATE TABLE {full} ({key} serial, {value} text DEFAULT '%s {{}}', "x'y" int CHECK ("x'y" % 7 < 8),
                             CONSTRAINT "Schlüssel %" PRIMARY KEY ({key}));
        CREATE INDEX "Index %s {{}}" ON {full} ({value}) WHERE {value} LIKE '%5%';
        COMMENT ON TABLE {full} IS '100% {{}} %s';
        INSERT INTO {full} SELECT n, 'wert ' || n || '%', n FROM generate_series(1, 400) n
        """,
    )
    some = f"{key} = (SELECT {key} FROM {full} ORDER BY random() LIMIT 1)"
    expression = (
        f"CASE WHEN {value} LIKE '%5%' THEN format('%s {{}} %%', \"x'y\" % 10) ELSE E'\\\\{{' END"
    )
    where = f"{value} NOT LIKE '%77%' AND \"x'y\" % 100 <> 50 AND {value} <> '{{}}'"
    added = "neu % {} %s"
    restructure(
        database,
        plan(
            full,
            alter=[
                f"ALTER {key} TYPE bigint",
                f'ADD "{added}" text',
                f"ADD CONSTRAINT \"gut %s\" CHECK ({value} NOT LIKE '%77%')",
            ],
            columns={added: expression},
            where=where,
        ),
        f"UPDATE {full} SET {value} = {value} || '5%' WHERE {some}",
        f"UPDATE {full} SET {value} = '77', \"x'y\" = 150 WHERE {some}",
        f"UPDATE {full} SET {key} = {key} + 10000 WHERE {some} AND {key} BETWEEN 1 AND 400",
        f"INSERT INTO {full} ({key}) SELECT least(min({key}), 0) - 1 FROM {full} ON CONFLICT DO NOTHING",
    )
    assert_transformed(connection, table, f'{key}, {value}, "x\'y", {expression}', where=where)
    run(connection, f"INSERT INTO {full} ({key}) VALUES (DEFAULT) ON CONFLICT DO NOTHING")
    names = one(
        connection,
        "SELECT string_agg(relname, '|' ORDER BY relname COLLATE \"C\") FROM pg_index JOIN pg_class ON oid = indexrelid"
        f" WHERE indrelid = $${full}$$::regclass",
    )
    assert names == "Index %s {}|Schlüssel %"


def test_names_of_sixty_three_bytes(database: str, connection: psycopg.Connection) -> None:
    table, key, value = "t" * 63, "k" * 63, "ü" * 31
    run(
        connection,
        f"""
        CREATE TABLE {table} ({key} serial PRIMARY KEY, {value} int);
        INSERT INTO {table} SELECT n, n FROM generate_series(1, 200) n
        """,
    )
    restructure(
        database,
        plan(table, alter=[f"ALTER {key} TYPE bigint"]),
        f"UPDATE {table} SET {value} = {value} + 1 WHERE {key} = 7",
        writes=10,
    )
    assert_transformed(connection, table, f"{key}, {value}")
