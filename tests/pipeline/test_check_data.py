"""``check --data``: what it says of the rows is what PostgreSQL says of them."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest
from psycopg import sql

from restructure.engine.trial import scan
from restructure.errors import Interrupted
from restructure.phases.data_check import DataCheck, DataChecker, Looking
from restructure.plan.load import LoadedPlan
from restructure.shape.deparse import printed
from restructure.shape.shadow import Shadow
from restructure.shape.table import read_table
from tests.pipeline.moments import eventually, value
from tests.pipeline.tool import Tool
from tests.shape_workbench import build, finish, plan, tables

Session = psycopg.Connection
Found = dict[tuple[str, str], tuple[int, list[tuple[str, ...]]]]


def looked_at(session: Session, dsn: str, loaded: LoadedPlan) -> DataCheck:
    before = tables(session)
    source = read_table(session, loaded.plan.table)
    found = DataChecker(dsn, loaded, source, lambda _: None).run()
    assert tables(session) == before
    return found


def refused(found: DataCheck) -> Found:
    """What each demand refuses, for whichever reason."""
    merged: Found = {}
    for one in found.refused:
        rows, keys = merged.get((one.kind, one.name), (0, []))
        merged[one.kind, one.name] = (rows + one.rows, sorted(keys + one.keys))
    return merged


SOURCE = """
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE parent (id bigint PRIMARY KEY);
INSERT INTO parent SELECT generate_series(1, 50);
CREATE TABLE pair (a bigint, "B, )" int, PRIMARY KEY (a, "B, )"));
INSERT INTO pair SELECT generate_series(1, 50), 1;
CREATE TABLE t (id int PRIMARY KEY, part int NOT NULL DEFAULT 1, word text, number text,
                divisor int NOT NULL DEFAULT 1, parent int, name text, price numeric, bits varbit,
                words text[]);
INSERT INTO t (id, word, number, parent, name, price, bits, words)
SELECT n, 'w' || n, n, n % 50 + 1, 'Name' || n, n, B'101', ARRAY['a' || n] FROM generate_series(1, 3000) n;
"""


@pytest.fixture
def example(connection: Session) -> Session:
    connection.execute(SOURCE)
    return connection


CASES: dict[str, tuple[str, dict[str, Any], tuple[str, str], list[int]]] = {
    "not null": (
        "UPDATE t SET word = NULL WHERE id IN (7, 2000)",
        {"alter": ["ALTER word SET NOT NULL"]},
        ("not_null", "word"),
        [7, 2000],
    ),
    "check": (
        "UPDATE t SET price = -1 WHERE id IN (5, 6)",
        {"alter": ["ADD CONSTRAINT dear CHECK (price >= 0)"]},
        ("check", "dear"),
        [5, 6],
    ),
    "value": (
        "UPDATE t SET number = 'many' WHERE id IN (1, 1500, 3000)",
        {
            "alter": ["ALTER number TYPE int USING number::int"],
            "columns": {"number": "number::int"},
        },
        ("value", "number"),
        [1, 1500, 3000],
    ),
    "division": (
        "UPDATE t SET divisor = 0 WHERE id = 44",
        {"alter": ["ADD ratio numeric"], "columns": {"ratio": "price / divisor"}},
        ("value", "ratio"),
        [44],
    ),
    "length": (
        "UPDATE t SET word = 'a very long one' WHERE id = 9; UPDATE t SET word = 'w10          ' WHERE id = 10",
        {"alter": ["ALTER word TYPE varchar(5)"]},
        ("length", "word"),
        [9],
    ),
    "lengths in an array": (
        "UPDATE t SET words = ARRAY['a', 'a very long one'] WHERE id = 9",
        {"alter": ["ALTER words TYPE varchar(5)[]"]},
        ("length", "words"),
        [9],
    ),
    "precision": (
        "UPDATE t SET price = 99999.5 WHERE id = 9",
        {"alter": ["ALTER price TYPE numeric(5,0)"]},
        ("length", "price"),
        [9],
    ),
    "bits": (
        "UPDATE t SET bits = B'10' WHERE id = 9",
        {"alter": ["ALTER bits TYPE bit(3)"]},
        ("length", "bits"),
        [9],
    ),
    "domain": (
        "UPDATE t SET divisor = -1 WHERE id = 12",
        {"alter": ["ALTER divisor TYPE positive"]},
        ("value", "divisor"),
        [12],
    ),
    "unique": (
        "UPDATE t SET name = 'NAME8' WHERE id = 7",
        {
            "create": "CREATE TABLE t (LIKE public.t INCLUDING ALL); CREATE UNIQUE INDEX one ON t (lower(name))"
        },
        ("unique", "one"),
        [7, 8],
    ),
    "unique nulls": (
        "UPDATE t SET price = 8.4 WHERE id = 7; UPDATE t SET price = NULL WHERE id IN (9, 10)",
        {
            "alter": [
                "ALTER price TYPE numeric(10)",
                "ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (price)",
            ]
        },
        ("unique", "u"),
        [7, 8, 9, 10],
    ),
    "foreign key, full": (
        "UPDATE t SET part = 2 WHERE id = 3; UPDATE t SET parent = NULL WHERE id = 4",
        {
            "alter": [
                'ADD CONSTRAINT of FOREIGN KEY (parent, part) REFERENCES pair (a, "B, )") MATCH FULL'
            ]
        },
        ("foreign_key", "of"),
        [3, 4],
    ),
    "foreign key": (
        "UPDATE t SET parent = 77 WHERE id = 3; UPDATE t SET parent = NULL WHERE id = 4",
        {"alter": ["ADD CONSTRAINT of FOREIGN KEY (parent) REFERENCES parent"]},
        ("foreign_key", "of"),
        [3],
    ),
    "generated": (
        "UPDATE t SET divisor = 0 WHERE id = 44",
        {"alter": ["ADD ratio int GENERATED ALWAYS AS (id / divisor) STORED"]},
        ("value", "ratio"),
        [44],
    ),
    "index": (
        "UPDATE t SET divisor = 0 WHERE id = 44",
        {
            "create": "CREATE TABLE t (LIKE public.t INCLUDING ALL); CREATE INDEX by ON t ((id / divisor))"
        },
        ("index", "by"),
        [44],
    ),
    "collation": (
        "UPDATE t SET name = 'äpfel' WHERE id = 44",
        {
            "alter": [
                'ALTER name TYPE text COLLATE "C"',
                "ADD CONSTRAINT c CHECK (upper(name) <> 'äPFEL')",
            ]
        },
        ("check", "c"),
        [44],
    ),
    "length of a partition key": (
        "UPDATE t SET word = 'a very long one' WHERE id = 9",
        {
            "create": "CREATE TABLE t (id int, part int, word varchar(5), number text, divisor int,"
            " parent int, name text, price numeric, bits varbit, words text[],"
            " PRIMARY KEY (id, word)) PARTITION BY RANGE (word);"
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('w') TO ('x')"
        },
        ("length", "word"),
        [9],
    ),
    "partition": (
        "UPDATE t SET part = 3 WHERE id = 44",
        {
            "create": "CREATE TABLE t (LIKE public.t INCLUDING DEFAULTS, PRIMARY KEY (id, part))"
            " PARTITION BY LIST (part);"
            "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1, 2)"
        },
        ("partition", "public.t"),
        [44],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_of_each_kind_is_counted_and_its_key_shown(
    case: str, example: Session, database: str
) -> None:
    change, sections, rule, ids = CASES[case]
    clean = looked_at(example, database, plan(**sections))
    assert (clean.rows, refused(clean), clean.not_looked_at, clean.complete) == (3000, {}, [], True)
    example.execute(change)

    found = looked_at(example, database, plan(**sections))

    assert refused(found) == {rule: (len(ids), sorted((str(one),) for one in ids))}
    assert (found.rows, found.not_looked_at, found.complete) == (3000, [], True)


def test_unique_in_a_collation_that_takes_more_for_equal(example: Session, database: str) -> None:
    try:
        example.execute(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    example.execute("ALTER TABLE t ADD UNIQUE (name); UPDATE t SET name = 'NAME8' WHERE id = 7")
    same = plan(alter=["ALTER name TYPE varchar", "ADD UNIQUE (name, id)"])
    assert refused(looked_at(example, database, same)) == {}
    equal = plan(alter=["ALTER name TYPE text COLLATE ci"])
    assert refused(looked_at(example, database, equal)) == {
        ("unique", "t_name_key"): (2, [("7",), ("8",)])
    }


def test_what_the_source_proves_is_not_asked_of_all_rows(example: Session, database: str) -> None:
    example.execute("ALTER TABLE t ADD UNIQUE (name), ADD UNIQUE (parent, id)")
    loaded = plan(
        alter=[
            "ALTER id TYPE bigint",
            "ALTER parent TYPE bigint",
            "ADD UNIQUE NULLS NOT DISTINCT (word, id)",
            "ADD UNIQUE NULLS NOT DISTINCT (number, name)",
        ]
    )
    found = looked_at(example, database, loaded)
    assert found.asked_of_all_rows == ["t_number_name_key"]  # two names may be missing


def test_a_row_that_breaks_many_demands_counts_once_for_each(
    example: Session, database: str
) -> None:
    example.execute(
        "UPDATE t SET number = 'x', word = NULL, price = -1, divisor = 0 WHERE id = 8;"
        "UPDATE t SET word = 'a very long one', price = -1 WHERE id = 9;"
        "UPDATE t SET part = 0, price = -1 WHERE id = 10"
    )
    loaded = plan(
        alter=[
            "ALTER word SET NOT NULL",
            "ALTER word TYPE varchar(5)",
            "ALTER number TYPE int USING number::int",
            "ADD ratio int",
            "ADD CONSTRAINT dear CHECK (price >= 0)",
            "ADD good int GENERATED ALWAYS AS (id / part) STORED CHECK (good <> -5)",
            "ADD CONSTRAINT both_fine CHECK (number > 0 AND price >= 0)",
        ],
        columns={"number": "number::int", "ratio": "id / divisor"},
    )

    found = looked_at(example, database, loaded)

    eight, nine, ten = ("8",), ("9",), ("10",)
    assert refused(found) == {
        ("value", "number"): (1, [eight]),
        ("value", "ratio"): (1, [eight]),
        ("value", "good"): (1, [ten]),  # and not its check, of which nobody can say
        ("not_null", "word"): (1, [eight]),
        ("length", "word"): (1, [nine]),
        ("check", "dear"): (3, [ten, eight, nine]),
        ("check", "both_fine"): (2, [ten, nine]),  # likewise
    }
    assert found.rows == 3000
    assert all("x" not in one.reason.split("(")[0].split() for one in found.refused)


def test_findings_name_keys_and_remedies_and_never_a_value(example: Session, database: str) -> None:
    example.execute("UPDATE t SET number = 'secret' WHERE id = 8")
    example.execute("UPDATE t SET word = 'secret and long' WHERE id < 40")
    loaded = plan(
        alter=["ALTER word TYPE varchar(5)", "ALTER number TYPE int USING number::int"],
        columns={"number": "number::int"},
    )
    found = looked_at(example, database, loaded)
    length, value_ = sorted(found.findings, key=lambda one: one.check)
    assert length.refuses and value_.refuses
    assert length.message.startswith("39 rows of public.t: the value of word is too long")
    assert length.message.endswith(" …") and length.message.count(",") == 9
    assert "InvalidTextRepresentation" in value_.message and value_.message.endswith("id: 8")
    assert "secret" not in f"{list(found.findings)} {found.as_json()}"
    assert set(found.as_json()["refused"][0]) == {"kind", "name", "reason", "rows", "keys"}


def test_partitions_composite_keys_and_rows_left_behind(connection: Session, database: str) -> None:
    connection.execute(
        'CREATE TABLE t (at date, id int, "Odd %s" text, up int, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);'
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM ('2026-02-01') TO ('2027-01-01');"
        "INSERT INTO t SELECT date '2026-01-01' + n, n, n, n FROM generate_series(0, 299) n;"
        "CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT id FROM t WHERE id <> 10;"
        'UPDATE t SET "Odd %s" = NULL WHERE id IN (3, 200, 250)'
    )
    create = """
        CREATE TABLE t (at date, id int, "Odd %s" text NOT NULL, up int REFERENCES parent,
            PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
        CREATE TABLE tx PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-06-01')
            PARTITION BY LIST (id);
        CREATE TABLE tx_some PARTITION OF tx FOR VALUES IN (0, 1, 2, 3);
        CREATE TABLE tx_more PARTITION OF tx DEFAULT PARTITION BY RANGE (id);
        CREATE TABLE tx_h PARTITION OF tx_more FOR VALUES FROM (4) TO (140) PARTITION BY HASH (id);
        CREATE TABLE tx_0 PARTITION OF tx_h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE tx_1 PARTITION OF tx_h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE ty PARTITION OF t (CHECK (up <> 220 AND id > 150))
            FOR VALUES FROM ('2026-06-01') TO ('2026-10-01') """
    found = looked_at(connection, database, plan(create=create, where="id <> 250"))
    late = "SELECT count(*) FROM t WHERE at >= '2026-10-01' OR id BETWEEN 140 AND 150"
    assert refused(found)["not_null", "Odd %s"] == (2, [("2026-01-04", "3"), ("2026-07-20", "200")])
    assert refused(found)["check", "ty_check"] == (1, [("2026-08-09", "220")])
    rows, keys = refused(found)["partition", "public.t"]
    assert (rows, keys[0], len(keys)) == (value(connection, late), ("2026-05-21", "140"), 10)
    assert refused(found)["foreign_key", "t_up_fkey"] == (1, [("2026-01-11", "10")])
    assert found.rows == 299 and found.not_looked_at == []


def test_a_parent_left_behind_is_missed(connection: Session, database: str) -> None:
    connection.execute(
        "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t);"
        "INSERT INTO t SELECT n, nullif(n - 1, 0) FROM generate_series(1, 20) n"
    )
    loaded = plan(alter=["ALTER id TYPE bigint", "ALTER up TYPE bigint"])
    assert refused(looked_at(connection, database, loaded)) == {}
    loaded = plan(alter=["ALTER id TYPE bigint", "ALTER up TYPE bigint"], where="id <> 7")
    assert refused(looked_at(connection, database, loaded)) == {
        ("foreign_key", "t_up_fkey"): (1, [("8",)])
    }


def test_what_cannot_be_asked_is_said(example: Session, database: str) -> None:
    create = """CREATE TABLE t (LIKE public.t INCLUDING ALL, no bigserial CHECK (no > 0),
        at timestamptz DEFAULT now() CHECK (at > '2000-01-01'),
        EXCLUDE USING btree (part WITH =) WHERE (part = 2))"""
    found = looked_at(example, database, plan(create=create))
    assert {(one.kind, one.name) for one in found.not_looked_at} == {
        ("check", "t_no_check"),
        ("exclude", "t_part_excl"),
    }
    assert refused(found) == {} and not any(one.refuses for one in found.findings)


def test_an_empty_table_refuses_nothing(connection: Session, database: str) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    found = looked_at(connection, database, plan(alter=["ALTER a SET NOT NULL"]))
    assert (found.rows, refused(found), found.complete) == (0, {}, True)


def test_so_many_rows_that_raise_are_counted_at_least(
    example: Session, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "RAISING", 30)
    example.execute("UPDATE t SET divisor = 0")
    loaded = plan(alter=["ADD ratio int"], columns={"ratio": "id / divisor"})
    found = looked_at(example, database, loaded)
    rows, keys = refused(found)["value", "ratio"]
    assert 30 <= rows <= 32 and len(keys) == 10 and not found.complete
    assert next(iter(found.findings)).message.startswith("at least 3")


def test_a_stop_ends_the_statement_under_way(example: Session, database: str) -> None:
    example.execute(
        "CREATE FUNCTION held(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " PERFORM pg_sleep(100); RETURN $1; END $$"
    )
    loaded = plan(alter=["ADD slow text"], columns={"slow": "held(word)"})
    source = read_table(example, "t")
    checker = DataChecker(database, loaded, source, lambda looking: checker.stop("enough"))
    with pytest.raises(Interrupted, match="enough"):
        checker.run()
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'restructure%'"
    eventually(lambda: value(example, ours) == 0, "no session of ours is left")


def test_nothing_is_written_not_even_by_a_function(example: Session, database: str) -> None:
    example.execute(
        "CREATE SEQUENCE s; CREATE FUNCTION writes(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM nextval('s'); RETURN $1; END $$"
    )
    loaded = plan(alter=["ADD bad text"], columns={"bad": "writes(word)"})
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        looked_at(example, database, loaded)


def test_it_waits_while_the_plan_s_throttle_says_so(example: Session, database: str) -> None:
    example.execute("CREATE TABLE busy ()")
    loaded = plan(
        alter=["ALTER word SET NOT NULL"],
        throttle={"query": "SELECT to_regclass('busy') IS NOT NULL"},
    )
    seen: list[Looking] = []

    def look(looking: Looking) -> None:
        seen.append(looking)
        if len(seen) == 3:
            example.execute("DROP TABLE busy")

    found = DataChecker(database, loaded, read_table(example, "t"), look).run()
    assert seen[1].throttled == "throttle.query says so" and seen[2].rows == 0
    assert found.rows == 3000


ALTERS: dict[str, dict[str, str]] = {
    "ALTER a SET NOT NULL": {},
    "ALTER b TYPE varchar(3)": {},
    "ALTER c TYPE numeric(4,1)": {},
    "ALTER d TYPE varchar(2)[]": {},
    "ADD CONSTRAINT c1 CHECK (a + e > 3)": {},
    "ADD CONSTRAINT c2 CHECK (10 / nullif(e, 1) > 2 AND b <> 'ab')": {},
    "ALTER f TYPE int USING f::int": {"f": "f::int"},
    "ADD g positive NOT NULL": {"g": "e"},
    "ADD i bit(3)": {"i": "b::text::varbit"},
    "ADD j char(2) NOT NULL DEFAULT 'x'": {},
    "ALTER e TYPE smallint USING (e * 9000)::smallint": {"e": "(e * 9000)::smallint"},
    "ADD h int GENERATED ALWAYS AS (a / e) STORED CHECK (h <> 2)": {},
    "ADD CONSTRAINT u UNIQUE (a, c)": {},
}


def random_rows(dice: random.Random) -> list[tuple[Any, ...]]:
    texts = [None, "", "ab", "abc", "abc  ", "abcd", "101", "12", " 7 ", "ä€x", "äöüß"]
    numbers = [None, "1.04", "999.94", "999.95", "-1000", "NaN", "Infinity", "0"]
    lists = [None, [], ["a"], ["abc", None], ["ab  "]]
    return [
        (
            n,
            dice.choice([None, *range(-3, 9)]),
            dice.choice(texts),
            dice.choice(numbers),
            dice.choice(lists),
            dice.choice([0, 1, 2, 3, 4, -1, None]),
            dice.choice(texts),
        )
        for n in range(60)
    ]


def seed_random(session: Session, dice: random.Random) -> LoadedPlan:
    session.execute(
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TABLE t"
        " (id int PRIMARY KEY, a int, b text, c numeric, d text[], e int, f text) WITH (fillfactor = 10)"
    )
    with session.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s, %s)", random_rows(dice))
    chosen = dice.sample(list(ALTERS), dice.randint(1, 4))
    chosen.sort(key=list(ALTERS).index)
    columns: dict[str, str] = {}
    for clause in chosen:
        columns |= ALTERS[clause]
    return plan(alter=chosen, columns=columns)


def refused_by_postgresql(session: Session, shadow: Shadow) -> set[str]:
    """The rows that cannot be inserted into the real shadow, each tried for itself."""
    insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM t WHERE id = {}")
    names = sql.SQL(", ").join(sql.Identifier(one.name) for one in shadow.mapping.filled)
    values = sql.SQL(", ").join(printed(one.expression) for one in shadow.mapping.filled)
    found = set()
    for (number,) in session.execute("SELECT id FROM t").fetchall():
        try:
            session.execute(insert.format(shadow.relation.identifier, names, values, number))
        except (psycopg.DataError, psycopg.IntegrityError):
            found.add(str(number))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_refuses_what_postgresql_refuses(
    seed: int, connection: Session, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restructure.engine.trial.tally.SHOWN", 1000)
    monkeypatch.setattr(scan, "SHOWN", 1000)
    monkeypatch.setattr("restructure.engine.trial.uniques.SHOWN", 1000)
    loaded = seed_random(connection, random.Random(seed))
    said = refused(looked_at(connection, database, loaded))
    doubled = said.pop(("unique", "u"), (0, []))[1]
    shadow = build(connection, loaded)

    really = refused_by_postgresql(connection, shadow)

    assert {key for _, keys in said.values() for (key,) in keys} == really, said
    for rows, keys in said.values():
        assert rows == len(keys)
    if really:
        return
    try:
        finish(connection, shadow, "key", "index")
        assert not doubled
    except psycopg.errors.UniqueViolation:
        assert doubled


@pytest.mark.parametrize("seed", [100, 101])
def test_refuses_what_a_run_puts_into_quarantine(
    seed: int, connection: Session, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("restructure.engine.trial.tally.SHOWN", 1000)
    monkeypatch.setattr(scan, "SHOWN", 1000)
    loaded = seed_random(connection, random.Random(seed))
    said = refused(looked_at(connection, database, loaded))
    said.pop(("unique", "u"), None)
    with Tool(database, loaded.source, hold="copied") as tool:
        tool.held()
        rows = connection.execute("SELECT k1::text FROM restructure.quarantine_job").fetchall()
    assert {row[0] for row in rows} == {key for _, keys in said.values() for (key,) in keys}
