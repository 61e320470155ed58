"""Verification of tables whose keys have another order, another width or another place in the new shape."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.pipeline.shapes import Writers, one, plan, run
from tests.pipeline.verifying import SHADOW, Session, differing, repair, staying, verify


@dataclass(frozen=True)
class Shape:
    """A table ``t``, its new shape, a client's statement, and damage with the keys it must be found by."""

    ddl: str
    sections: dict[str, object]
    writes: str
    damage: str
    keys: set[tuple[str | None, ...]]


SHAPES = {
    "a number that becomes a text": Shape(
        "CREATE TABLE t (id int PRIMARY KEY, v text);"
        " INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 9000) n",
        {"alter": ["ALTER id TYPE text"]},
        "UPDATE t SET v = v || 'x' WHERE id = 5000 + (random() * 4000)::int",
        f"DELETE FROM {SHADOW} WHERE id = '7'; UPDATE {SHADOW} SET v = 'V8' WHERE id = '8';"
        f" INSERT INTO {SHADOW} VALUES ('abc', 'x'), ('0010', 'x'), ('-5', 'x')",
        {("7",), ("8",), ("abc",), ("0010",), ("-5",)},
    ),
    "two columns, one of them a text of its own order": Shape(
        'CREATE TABLE t (a text COLLATE "C", b int, v text, PRIMARY KEY (a, b));'
        " INSERT INTO t SELECT chr(65 + n % 40), n, 'v' FROM generate_series(1, 9000) n",
        {"alter": ["ALTER b TYPE bigint"], "where": "b <> 300"},
        "UPDATE t SET v = v || 'x', b = b + 10000 WHERE b = 5000 + (random() * 4000)::int",
        f"DELETE FROM {SHADOW} WHERE b = 7; UPDATE {SHADOW} SET v = 'V' WHERE b = 80;"
        f" INSERT INTO {SHADOW} VALUES ('é', 1, 'x'), ('U', 300, 'v')",
        {("H", "7"), ("A", "80"), ("é", "1"), ("U", "300")},
    ),
    "the same columns in another order": Shape(
        "CREATE TABLE t (a int, b int, v text, PRIMARY KEY (a, b));"
        " INSERT INTO t SELECT n % 10, n, 'v' FROM generate_series(1, 9000) n",
        {"create": "CREATE TABLE t (b int, a int, v text, PRIMARY KEY (b, a))"},
        "UPDATE t SET v = v || 'x' WHERE a = 5 AND b = 5 + 10 * (random() * 800)::int",
        f"DELETE FROM {SHADOW} WHERE b = 7; INSERT INTO {SHADOW} VALUES (1, 70000, 'x')",
        {("7", "7"), ("70000", "1")},
    ),
    "partitions, by a column that is no part of the key": Shape(
        "CREATE TABLE t (id int PRIMARY KEY, n int, v text) PARTITION BY RANGE (id);"
        " CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (3000);"
        " CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (3000) TO (90000);"
        " INSERT INTO t SELECT n, n % 100, 'v' FROM generate_series(1, 9000) n",
        {
            "create": "CREATE TABLE t (id bigint, n int, v text, PRIMARY KEY (id, n)) PARTITION BY RANGE (n);"
            " CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (50);"
            " CREATE TABLE t_rest PARTITION OF t DEFAULT"
        },
        "UPDATE t SET v = v || 'x', n = (n + 50) % 100 WHERE id = 5000 + (random() * 4000)::int",
        # the copy of row 7 in the other partition has the same key for us, and not for PostgreSQL
        f"INSERT INTO {SHADOW} VALUES (7, 99, 'v'), (99999999999, 1, 'x');"
        f" DELETE FROM {SHADOW} WHERE id = 8; UPDATE {SHADOW} SET n = 60 WHERE id = 9",
        {("7",), ("99999999999",), ("8",), ("9",)},
    ),
    "a key that nothing keeps whole": Shape(
        "CREATE TABLE t (id int PRIMARY KEY, v text);"
        " INSERT INTO t SELECT n, 'v' FROM generate_series(1, 9000) n",
        {"create": "CREATE TABLE t (id bigint, v text); CREATE INDEX ON t (id)"},
        "UPDATE t SET v = v || 'x' WHERE id = 5000 + (random() * 4000)::int",
        f"INSERT INTO {SHADOW} VALUES (NULL, 'x'), (7, 'v')",  # row 7 twice, bit by bit
        {(None,), ("7",)},
    ),
    "no rows": Shape(
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        {"alter": ["ALTER id TYPE bigint"]},
        "SELECT",
        f"INSERT INTO {SHADOW} VALUES (1, 'x')",
        {("1",)},
    ),
    "one row": Shape(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, '')",
        {"alter": ["ALTER id TYPE bigint"]},
        "SELECT",
        f"UPDATE {SHADOW} SET v = NULL",
        {("1",)},
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_damage_is_found_whatever_the_key(database: str, connection: Session, shape: Shape) -> None:
    run(connection, shape.ddl)
    text = plan("t", verify={"chunk_target": "20ms"}, **shape.sections)
    with Writers(database, shape.writes) as writers, staying(database, text) as tool:
        tool.wait_for("verified")
        assert verify(tool, connection).passed
        run(connection, shape.damage)
        found = verify(tool, connection)
        assert differing(connection) == shape.keys
        assert found.differing == len(shape.keys)
        assert repair(tool, connection).passed
        assert verify(tool, connection).passed
        writers.stop()
        assert verify(tool, connection).passed
    rows = f"SELECT (SELECT count(*) FROM t WHERE {shape.sections.get('where', 'true')}) - count(*) FROM {SHADOW}"
    assert one(connection, rows) == 0
