"""Verification finds damage every time, and never takes lag for it."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.pipeline.shapes import Writers, one, plan, run
from tests.pipeline.test_shapes_values import TYPES, has_xml
from tests.pipeline.verifying import SHADOW, Session, differing, repair, staying, verify
from tests.workload import PLAN, Workload, seed

ALIKE = {
    "boolean": ("true", "false"),
    "smallint": ("1", "2"),
    "bigint": ("1", "4294967296"),  # the same 32 bits of hash, were the type's own hash used
    "numeric": ("1.0", "1.00"),
    "numeric(12, 3)": ("NaN", "1.500"),
    "real": ("0", "-0"),
    "double precision": ("NaN", "Infinity"),
    "money": ("1", "2"),
    "text": ("", None),
    "varchar(5)": ("a", "a "),
    'text COLLATE "blind"': ("a", "A"),
    "char(5)": ("ab", "aB"),
    '"char"': ("x", ""),
    "name": ("a", "b"),
    "bytea": (r"\x00ff5c", r"\x00fe5c"),
    "date": ("infinity", "-infinity"),
    "time": ("24:00:00", "00:00:00"),
    "timetz": ("12:00:00+00", "13:00:00+01"),
    "timestamp": ("2026-01-01 00:00:00", "2026-01-01 00:00:00.000001"),
    "timestamptz(3)": ("2026-03-29 02:30:00.123+00", "2026-03-29 02:30:00.124+00"),
    "interval": ("1 mon", "30 days"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"),
    "inet": ("10.1.2.3/8", "10.1.2.3/9"),
    "cidr": ("10.0.0.0/8", "10.0.0.0/9"),
    "macaddr": ("08:00:2b:01:02:03", "08:00:2b:01:02:04"),
    "bit(3)": ("101", "100"),
    "varbit": ("1", "10"),
    "point": ("(1,-0)", "(1,0)"),
    "line": ("{1,2,3}", "{2,4,6}"),
    "lseg": ("[(1,2),(3,4)]", "[(3,4),(1,2)]"),
    "box": ("(2,2),(0,0)", "(4,1),(0,0)"),  # of one area, which is box's equality
    "path": ("[(1,2),(3,4)]", "((1,2),(3,4))"),
    "polygon": ("((0,0),(1,1),(2,0))", "((1,1),(2,0),(0,0))"),
    "circle": ("<(1,2),3>", "<(2,1),3>"),
    "json": ('{"a": 1}', '{"a":1}'),
    "jsonb": ('{"a": 1.0}', '{"a": 1.00}'),
    "jsonpath": ("$.a", "$.b"),
    "xml": ("<a/>", "<a></a>"),
    "tsvector": ("'a':1A", "'a':1B"),
    "tsquery": ("'a' & 'b'", "'b' & 'a'"),
    "pg_lsn": ("0/1", "0/2"),
    "xid8": ("1", "2"),
    "aclitem": ("=r/postgres", "=w/postgres"),  # of no binary form
    "aclitem[]": ("{=r/postgres}", "{=w/postgres}"),
    "int4range": ("empty", "[1,2)"),
    "numrange": ("[1.0,2)", "[1.00,2)"),
    "datemultirange": ("{}", "{[2020-01-01,2020-01-02)}"),
    "int[]": ("{7,8}", "[0:1]={7,8}"),
    "text[]": ('{""}', "{NULL}"),
    "mood": ("it's", 'very "good"'),
    "positive": ("1", "2"),
    "pair": ("(1,)", '(1,"")'),
    "pair[]": ('{"(1,x)",NULL}', '{"(1,x)"}'),
    "spans": ("empty", '["(1,a)","(2,b)")'),
}
"""For each kind of column a value, and one that display, equality or a lesser hash could take for it."""


@pytest.mark.timeout(300)
def test_damage_in_a_column_of_every_type_is_found_and_repaired(
    database: str, connection: Session
) -> None:
    """Row ``n`` is damaged in column ``n`` alone. Others are written to meanwhile."""
    run(connection, TYPES)
    kinds = dict(ALIKE)
    try:
        run(connection, BLIND)
    except psycopg.errors.FeatureNotSupported:
        del kinds['text COLLATE "blind"']
    if not has_xml(connection):
        del kinds["xml"]
    columns = [f"c{n} {kind}" for n, kind in enumerate(kinds, 1)]
    rounded = (
        "price numeric DEFAULT 1.005, code varchar(5) DEFAULT 'ab',"
        " at timestamp DEFAULT '2026-01-01 00:00:00.5'"
    )
    run(
        connection,
        f"CREATE TABLE t (id int PRIMARY KEY, n int, {', '.join(columns)}, {rounded})",
    )
    marks = ", ".join(["%s"] * len(kinds))
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(
            f"INSERT INTO t SELECT n, 0, {marks} FROM generate_series(1, 400) n",
            [good for good, _ in kinds.values()],
        )
    writes = "UPDATE t SET n = n + 1 WHERE id = 200 + (random() * 200)::int"
    types = {"id": "bigint", "price": "numeric(8, 2)", "code": "char(8)", "at": "timestamp(0)"}
    alter = [f"ALTER {name} TYPE {kind}" for name, kind in types.items()]
    text = plan("t", alter=[*alter, "ADD twice int"], columns={"twice": "n * 2"})
    with Writers(database, writes) as writers, staying(database, text) as tool:
        tool.wait_for("verified")
        for number, (_, bad) in enumerate(kinds.values(), 1):
            done = connection.execute(
                f"UPDATE {SHADOW} SET c{number} = %s WHERE id = %s", (bad, number)
            )
            assert done.rowcount == 1
        found = verify(tool, connection)
        assert (found.state, found.differing) == ("failed", len(kinds))
        assert differing(connection) == {(str(n),) for n in range(1, len(kinds) + 1)}
        assert repair(tool, connection).passed
        assert verify(tool, connection).passed
        writers.stop()
    wrong = f"SELECT id FROM t JOIN {SHADOW} AS s USING (id) WHERE t.c1 IS DISTINCT FROM s.c1"
    assert one(connection, wrong) is None


BLIND = "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"

DAMAGE = {
    "a missing row": f"DELETE FROM {SHADOW} WHERE id = 7",
    "an extra row": f"INSERT INTO {SHADOW} (id, v) VALUES (99999999999, 'x')",
    "an extra row within": f"INSERT INTO {SHADOW} (id, v) VALUES (-5, 'x')",
    "a swapped pair": f"UPDATE {SHADOW} SET v = CASE id WHEN 7 THEN 'v8' ELSE 'v7' END WHERE id IN (7, 8)",
    "a moved row": f"UPDATE {SHADOW} SET id = -7 WHERE id = 7",
    "many missing rows": f"DELETE FROM {SHADOW} WHERE id BETWEEN 1001 AND 3000",
    "all rows": f"TRUNCATE {SHADOW}",
}
WRONG = {
    "a missing row": 1,
    "an extra row": 1,
    "an extra row within": 1,
    "a swapped pair": 2,
    "a moved row": 2,
    "many missing rows": 2000,
    "all rows": 20_000,
}


@pytest.mark.timeout(300)
def test_rows_that_are_missing_or_too_many_are_found_and_repaired(
    database: str, connection: Session
) -> None:
    run(
        connection,
        "CREATE TABLE t (id int PRIMARY KEY, v text);"
        " INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 20000) n",
    )
    writes = "UPDATE t SET v = v || 'x' WHERE id = 10000 + (random() * 10000)::int"
    text = plan("t", alter=["ALTER id TYPE bigint"], verify={"chunk_target": "20ms"})
    with Writers(database, writes) as writers, staying(database, text) as tool:
        tool.wait_for("verified")
        for name, statement in DAMAGE.items():
            run(connection, statement)
            found = verify(tool, connection)
            if name != "all rows":  # some of which are written to, and so made anew
                assert (found.state, found.differing) == ("failed", WRONG[name]), name
            assert found.state == "failed" and 0 < len(found.keys) <= 20, name
            assert repair(tool, connection).passed, name
        writers.stop()


@pytest.mark.timeout(300)
def test_never_a_false_alarm_under_load(database: str, connection: Session) -> None:
    """Beside writers that change keys, swap unique values and roll back, and beside a row that never
    rests. Fifty verifications in all, on two versions of PostgreSQL."""
    seed(connection, 3_000)
    connection.execute("INSERT INTO items (id, code, amount, body) VALUES (-1, 'hot', 0, 'x')")
    stop = threading.Event()

    def heat() -> None:
        with psycopg.connect(database, autocommit=True) as session:
            while not stop.is_set():
                session.execute("UPDATE items SET amount = amount + 1 WHERE id = -1")

    hot = threading.Thread(target=heat)
    text = PLAN.format(name="items") + "verify: {chunk_target: 5ms}\n"
    with Workload(database, 3_000), staying(database, text) as tool:
        hot.start()
        try:
            for _ in range(25):
                tool.wait_for("verified")
                found = verify(tool, connection)
                assert found.passed, found.keys
        finally:
            stop.set()
            hot.join()
