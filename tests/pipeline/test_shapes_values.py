"""Values of every type, and tables of every width and size, arrive as they were."""

from __future__ import annotations

import random

import psycopg
import pytest

from tests.pipeline.shapes import assert_transformed, one, plan, restructure, run

SOME = "id = (SELECT id FROM t ORDER BY random() LIMIT 1)"
WIDER = ["ALTER id TYPE bigint"]

VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "numeric": ["NaN", "Infinity", "-Infinity", "1.0", "1.00", "-0.00000000000000000000000000001"],
    "numeric(12, 3)": ["1.5", "NaN"],
    "real": ["NaN", "-0", "Infinity", "-Infinity", "1e-37", "3.4028235e38"],
    "double precision": ["NaN", "-0", "Infinity", "-Infinity", "0.1", "1e-307"],
    "money": ["-92233720368547758.08", "0"],
    "text": ["", " ", "Ünï © 漢字 \U0001f409", "%s %(x)s %% {} \\ ' \""],
    "varchar(5)": ["", "abcde"],
    "char(5)": ["", "ab"],
    '"char"': ["", "x"],
    "name": ["", "restructure"],
    "bytea": ["", "\\x00ff5c"],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"],
    "time": ["24:00:00", "00:00:00.000001"],
    "timetz": ["24:00:00-15:59", "04:05:06+00:30"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 00:00:00 BC"],
    "timestamptz(3)": ["infinity", "-infinity", "2026-03-29 02:30:00.123+00"],
    "interval": ["-1 year 2 mons -3 days 04:05:06.000007", "0"],
    "uuid": ["00000000-0000-0000-0000-000000000000"],
    "inet": ["::1/128", "10.1.2.3/8"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "bit(3)": ["101"],
    "varbit": ["", "1"],
    "point": ["(1,-0)", "(NaN,Infinity)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(1,2),(3,4)]"],
    "box": ["(3,4),(1,2)"],
    "path": ["[(1,2),(3,4)]", "((1,2),(3,4))"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "circle": ["<(1,2),3>"],
    "json": ['{"b": 1, "a":  2, "b": 3}', "null"],
    "jsonb": ['{"b": 1, "a": [null, 1.00, "\\u00e9"]}', "null", '""'],
    "jsonpath": ["$.a[*] ? (@ > 1)"],
    "xml": ["<a>&amp;<!-- x --></a>", "text"],
    "tsvector": ["'a':1A 'fat':2,4C", ""],
    "tsquery": ["'a' & !'b' <2> 'c':*", ""],
    "pg_lsn": ["FFFFFFFF/FFFFFFFF"],
    "pg_snapshot": ["10:20:10,14,15"],
    "xid8": ["18446744073709551615"],
    "oid": ["4294967295"],
    "regtype": ["integer"],
    "int4range": ["empty", "(,)", "[1,10)"],
    "numrange": ["empty", "(1.0,1.00]", "(,infinity]"],
    "tstzrange": ["(,infinity)", "[-infinity,infinity]"],
    "datemultirange": ["{}", "{(,2000-01-01),[2020-01-01,infinity)}"],
    "int[]": ["{}", "{NULL,1}", "{{1,2},{3,NULL}}", "[-1:0]={7,8}"],
    "text[]": ['{"",NULL,"a,b","\\"","{}"}'],
    "numeric[]": ["{{{NaN},{1.00}}}"],
    "mood": ["it's", 'very "good"'],
    "mood[]": ['{it\'s,NULL,"very \\"good\\""}'],
    "positive": ["1"],
    "positives": ["{1,2}"],
    "pair": ["(,)", '(1,"a ""b"", c")'],
    "pair[]": ['{"(1,x)",NULL}'],
    "spans": ["empty", '["(1,a)","(2,b)")'],
}

TYPES = """
CREATE TYPE mood AS ENUM ('it''s', 'very "good"');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN positives AS int[] CHECK (cardinality(VALUE) > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TYPE spans AS RANGE (subtype = pair);
"""


def has_xml(session: psycopg.Connection) -> bool:
    """Whether this build of PostgreSQL has libxml."""
    try:
        run(session, "SELECT xml '<a/>'")
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def test_values_of_every_type_arrive_as_they_are(
    database: str, connection: psycopg.Connection
) -> None:
    """All of them copied, and all of them once more by way of the stream."""
    run(connection, TYPES)
    kinds = dict(VALUES)
    if not has_xml(connection):
        del kinds["xml"]
    columns = [f"c{n} {kind}" for n, kind in enumerate(kinds)]
    run(connection, f"CREATE TABLE t (id int PRIMARY KEY, n int, {', '.join(columns)})")
    longest = max(map(len, kinds.values()))
    for row in range(longest + 1):
        cells = [values[row] if row < len(values) else None for values in kinds.values()]
        marks = ", ".join(["%s"] * len(cells))
        query = f"INSERT INTO t SELECT n, 0, {marks} FROM generate_series(%s, 300, %s) n"
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(query, [*cells, row + 1, longest + 1])
    restructure(
        database,
        plan("t", alter=[*WIDER, "ADD twice int NOT NULL"], columns={"twice": "n * 2"}),
        f"UPDATE t SET n = n + 1 WHERE {SOME}",
        f"UPDATE t SET id = id + 1000 WHERE {SOME} AND id < 1000",
    )
    assert_transformed(connection, "t", "t.*, n * 2")


def test_large_values_that_updates_of_other_columns_do_not_touch(
    database: str, connection: psycopg.Connection
) -> None:
    """The stream does not carry such values, so they must be read from the table."""
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, v int, body text, blob bytea);
        ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
        INSERT INTO t SELECT n, n, repeat(md5(n::text), 65536), repeat(n::text, 300000)::bytea
          FROM generate_series(1, 6) n
        """,
    )
    assert one(connection, "SELECT max(length(body)) FROM t") == 2 * 1024 * 1024
    restructure(
        database,
        plan("t", alter=WIDER),
        f"UPDATE t SET v = v + 1 WHERE {SOME}",
        f"UPDATE t SET id = id + 100, v = v + 1 WHERE {SOME} AND id < 10000",
        writes=20,
    )
    assert_transformed(
        connection, "t", "id, v, md5(body), md5(blob)", "id, v, md5(body), md5(blob)"
    )
    assert (
        one(
            connection,
            "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'body'",
        )
        == "e"
    )


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_with_hardly_any_rows(
    database: str, connection: psycopg.Connection, rows: int
) -> None:
    run(
        connection,
        f"CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'a' FROM generate_series(1, {rows}) n",
    )
    restructure(database, plan("t", alter=WIDER))
    assert one(connection, "SELECT count(*) FROM t") == rows
    assert_transformed(connection, "t", "id, v")


def test_a_table_that_fills_and_empties_meanwhile(
    database: str, connection: psycopg.Connection
) -> None:
    run(connection, "CREATE TABLE t (id int PRIMARY KEY, v text)")

    def fill_or_empty(session: psycopg.Connection, chance: random.Random) -> None:
        if chance.random() < 0.5:
            run(
                session,
                "INSERT INTO t SELECT n, random()::text FROM generate_series(1, 20) n ON CONFLICT DO NOTHING",
            )
        else:
            run(session, "DELETE FROM t")

    restructure(database, plan("t", alter=WIDER), fill_or_empty)
    assert_transformed(connection, "t", "id, v")


def test_two_hundred_columns(database: str, connection: psycopg.Connection) -> None:
    columns = ", ".join(f"c{n} {'text' if n % 2 else 'int'} DEFAULT {n}" for n in range(1, 201))
    run(
        connection,
        f"CREATE TABLE t (id int PRIMARY KEY, {columns}); INSERT INTO t (id) SELECT generate_series(1, 500)",
    )
    restructure(
        database,
        plan(
            "t",
            alter=[f"ALTER c{n} TYPE bigint" for n in range(2, 201, 20)] + ["DROP c7"],
            columns={"c3": "c3 || c7"},
        ),
        f"UPDATE t SET c200 = c200 + 1, c199 = c199 || 'x' WHERE {SOME}",
        f"UPDATE t SET id = id + 1000, c7 = c200 WHERE {SOME} AND id < 1000",
    )
    old = ", ".join({3: "c3 || c7"}.get(n, f"c{n}") for n in range(1, 201) if n != 7)
    assert_transformed(connection, "t", f"id, {old}")


def test_stored_generated_columns_in_the_old_table_and_the_new(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, price numeric, net numeric GENERATED ALWAYS AS (price / 1.19) STORED,
                        label text GENERATED ALWAYS AS ('no ' || id) STORED);
        INSERT INTO t SELECT n, n * 1.5 FROM generate_series(1, 500) n
        """,
    )
    restructure(
        database,
        plan(
            "t",
            alter=[
                "ALTER label DROP EXPRESSION",
                "ADD gross numeric GENERATED ALWAYS AS (price * 2) STORED",
            ],
            columns={"label": "label || '!'"},
        ),
        f"UPDATE t SET price = price + 1 WHERE {SOME}",
        f"UPDATE t SET id = id + 1000 WHERE {SOME} AND id < 1000",
        f"DELETE FROM t WHERE {SOME}",
    )
    assert_transformed(connection, "t", "id, price, net, label || '!', price * 2")
    assert (
        one(
            connection,
            "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = 't'::regclass AND attgenerated = 's'",
        )
        == "net,gross"
    )


@pytest.mark.pg_at_least(18)
def test_virtual_generated_columns_in_the_old_table_and_the_new(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        connection,
        """
        CREATE TABLE t (id int PRIMARY KEY, a int, kept int GENERATED ALWAYS AS (a + 1) VIRTUAL,
                        made int GENERATED ALWAYS AS (a + 2));
        INSERT INTO t SELECT n, n FROM generate_series(1, 500) n
        """,
    )
    restructure(
        database,
        plan(
            "t",
            create="CREATE TABLE t (id bigint PRIMARY KEY, a int, kept int GENERATED ALWAYS AS (a + 1) VIRTUAL,"
            " made int, more int GENERATED ALWAYS AS (a * 3) VIRTUAL)",
        ),
        f"UPDATE t SET a = a + 1 WHERE {SOME}",
        f"UPDATE t SET id = id + 1000 WHERE {SOME} AND id < 1000",
    )
    assert_transformed(connection, "t", "id, a, kept, made, a * 3")


def test_renamed_dropped_and_added_columns(database: str, connection: psycopg.Connection) -> None:
    """A column dropped long ago leaves a hole in the old table's numbering."""
    run(
        connection,
        """
        CREATE TABLE t (gone int, id int PRIMARY KEY, a text, b text, c text, d text DEFAULT 'd');
        ALTER TABLE t DROP gone;
        INSERT INTO t SELECT n, 'a' || n, 'b' || n, 'c' || n FROM generate_series(1, 500) n
        """,
    )
    restructure(
        database,
        plan(
            "t",
            alter=[
                "RENAME COLUMN a TO first_name",
                "RENAME COLUMN id TO number",
                "ALTER number TYPE bigint",
                "DROP COLUMN b",
                "RENAME COLUMN c TO b",
                "ADD COLUMN made int NOT NULL DEFAULT 7",
                "ALTER d SET NOT NULL",
            ],
            columns={"d": "coalesce(d, 'none')", "b": "c"},
        ),
        f"UPDATE t SET a = a || 'x', d = NULL WHERE {SOME}",
        f"UPDATE t SET c = NULL, b = 'y' WHERE {SOME}",
        f"DELETE FROM t WHERE {SOME}",
    )
    assert_transformed(connection, "t", "id, a, c, coalesce(d, 'none'), 7")


def test_serial_and_identity_columns_go_on_counting(
    database: str, connection: psycopg.Connection
) -> None:
    """A client that fetched fifty values before the swap uses them after it; none comes twice."""
    run(
        connection,
        """
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (CACHE 50) PRIMARY KEY, s serial UNIQUE,
                        d int GENERATED BY DEFAULT AS IDENTITY (START 1000 INCREMENT 5) UNIQUE, v int);
        ALTER SEQUENCE t_s_seq CACHE 50;
        INSERT INTO t (v) SELECT n FROM generate_series(1, 500) n
        """,
    )
    insert = "INSERT INTO t (v) VALUES (0)"
    with psycopg.connect(database, autocommit=True) as early:
        run(early, insert)
        restructure(
            database,
            plan("t", alter=[*WIDER, "ALTER s TYPE bigint", "ALTER d TYPE bigint"]),
            insert,
            f"UPDATE t SET v = v + 1 WHERE {SOME}",
        )
        assert_transformed(connection, "t", "id, s, d, v")
        for session in (early, connection, early):
            for _ in range(60):
                run(session, insert)
    kinds = connection.execute(
        "SELECT attname, attidentity::text, format_type(atttypid, -1) FROM pg_attribute"
        " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"
    ).fetchall()
    assert kinds == [
        ("id", "a", "bigint"),
        ("s", "", "bigint"),
        ("d", "d", "bigint"),
        ("v", "", "integer"),
    ]
    assert one(connection, "SELECT pg_get_serial_sequence('t', 's')") == "public.t_s_seq"
