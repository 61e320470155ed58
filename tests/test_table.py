"""Reading a table from the catalogs, and its fingerprint."""

from __future__ import annotations

import json

import psycopg
import pytest

from restructure.errors import SchemaDrift, UsageError
from restructure.model.relation import Relation
from restructure.shape.fingerprint import Fingerprint, compare, fingerprint
from restructure.shape.table import read_relation, read_table


def test_a_table_is_found_by_search_path_schema_and_quoted_name(
    connection: psycopg.Connection,
) -> None:
    connection.execute('CREATE SCHEMA s; CREATE TABLE s."Ö.d" (i int); CREATE TABLE s.plain ()')
    connection.execute("CREATE TABLE other ()")
    connection.execute("SET search_path = s, public")
    assert str(read_table(connection, "plain").relation) == "s.plain"
    assert str(read_table(connection, "PLAIN").relation) == "s.plain"
    assert str(read_table(connection, '"Ö.d"').relation) == "s.Ö.d"
    assert str(read_table(connection, 's . "Ö.d"').relation) == "s.Ö.d"
    assert connection.execute("SHOW search_path").fetchone() == ("s, public",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ordrs", "Did you mean public.orders?"),
        ("s.orders", "Did you mean public.orders?"),
        ('"ORDERS"', "Did you mean public.orders?"),
        ("nothing_like_it", "Name its schema"),
        ("a.b.c.d", "cannot be a table's name"),
        ("", "cannot be a table's name|there is no table"),
        ('"', "cannot be a table's name|there is no table"),
        ("orders; DROP TABLE orders", "cannot be a table's name|there is no table"),
        ("orders\x00", "NUL"),
    ],
)
def test_what_is_no_table_is_a_usage_error(
    connection: psycopg.Connection, name: str, words: str
) -> None:
    connection.execute("CREATE TABLE orders (i int)")
    with pytest.raises(UsageError) as caught:
        read_table(connection, name)
    assert any(word in f"{caught.value} {caught.value.hint}" for word in words.split("|"))


def test_every_kind_of_relation_is_read_so_that_checks_can_refuse_it(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "CREATE TABLE t (i int); CREATE VIEW v AS SELECT * FROM t; CREATE SEQUENCE q;"
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t; CREATE UNLOGGED TABLE u (i int);"
        "CREATE TYPE c AS (i int)"
    )
    kinds = {name: read_table(connection, name).relation_kind for name in "tvqmuc"}
    assert kinds == {"t": "r", "v": "v", "q": "S", "m": "m", "u": "r", "c": "c"}
    assert read_table(connection, "u").persistence == "u"


KEYS = {
    "a primary key": ("(a int, b int, PRIMARY KEY (b, a))", "", ["b", "a"]),
    "its own columns only": ("(a int, b int, PRIMARY KEY (a) INCLUDE (b))", "", ["a"]),
    "no key": ("(a int NOT NULL UNIQUE)", "", []),
    "a deferrable key": ("(a int PRIMARY KEY DEFERRABLE)", "", []),
    "an index": ("(a int NOT NULL UNIQUE)", "REPLICA IDENTITY USING INDEX t_a_key", ["a"]),
    "nothing": ("(a int PRIMARY KEY)", "REPLICA IDENTITY NOTHING", []),
    "full with a key": ("(a int PRIMARY KEY)", "REPLICA IDENTITY FULL", ["a"]),
    "full with an index": ("(a int, b int NOT NULL UNIQUE)", "REPLICA IDENTITY FULL", ["b"]),
    "full with a nullable index": ("(a int UNIQUE)", "REPLICA IDENTITY FULL", []),
    "full with a deferrable key": (
        "(a int PRIMARY KEY DEFERRABLE)",
        "REPLICA IDENTITY FULL",
        [],
    ),
}


@pytest.mark.parametrize("case", KEYS)
def test_the_key_is_what_postgresql_identifies_rows_by(
    connection: psycopg.Connection, case: str
) -> None:
    columns, identity, key = KEYS[case]
    connection.execute(f"CREATE TABLE t {columns}")
    if identity:
        connection.execute(f"ALTER TABLE t {identity}")
    connection.execute("CREATE UNIQUE INDEX partial ON t (a) WHERE a > 0")
    connection.execute("CREATE UNIQUE INDEX computed ON t ((a + 1))")
    table = read_table(connection, "t")
    assert [column.name for column in table.key] == key
    assert bool(table.key_index) == bool(key)


def test_types_are_printed_with_schema_length_and_collation(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "CREATE SCHEMA s; CREATE DOMAIN s.d AS varchar(3); SET search_path = s, public;"
        'CREATE TABLE t (a numeric(10,2), b d, c varchar(5) COLLATE "C", e d[], PRIMARY KEY (c, b))'
    )
    table = read_table(connection, "t")
    assert [column.type_sql for column in table.columns] == [
        "numeric(10,2)",
        "s.d",
        "character varying(5)",
        "s.d[]",
    ]
    assert [(key.type_sql, key.collation_sql) for key in table.key] == [
        ("character varying(5)", 'pg_catalog."C"'),
        ("s.d", 'pg_catalog."default"'),
    ]


def test_a_partitioned_table_knows_branches_and_leaves(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE TABLE t (a int, b int) PARTITION BY LIST (a);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1) PARTITION BY LIST (b);"
        "CREATE TABLE t11 PARTITION OF t1 FOR VALUES IN (1);"
        "CREATE TABLE t2 PARTITION OF t DEFAULT"
    )
    table = read_table(connection, "t")
    assert table.partitioned
    assert [branch.name for branch in table.branches] == ["t1"]
    assert sorted(leaf.name for leaf in table.leaves) == ["t11", "t2"]
    assert read_table(connection, "t11").leaves == (read_table(connection, "t11").relation,)


CHANGES = {
    "ALTER TABLE t ADD COLUMN x int": ["column x was added"],
    "ALTER TABLE t DROP COLUMN note": ["column note was dropped"],
    "ALTER TABLE t RENAME COLUMN note TO remark": ["column note was renamed to remark"],
    "ALTER TABLE t ALTER COLUMN note TYPE varchar(9)": ["column note: type, type modifier changed"],
    "ALTER TABLE t ALTER COLUMN note SET DEFAULT 'x'": ["column note: default changed"],
    "ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0)": ["constraint c was added"],
    "ALTER TABLE t DROP CONSTRAINT big": ["constraint big was dropped"],
    "ALTER TABLE t VALIDATE CONSTRAINT late": ["constraint late was changed"],
    "CREATE INDEX i ON t (n)": ["index i was added"],
    "DROP INDEX t_note": ["index t_note was dropped"],
    "ALTER TABLE t REPLICA IDENTITY FULL": ["the table's replica identity changed"],
    "ALTER TABLE t RENAME TO t9": ["the table's name changed"],
    "CREATE TABLE child () INHERITS (t)": ["partition public.child was added"],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_shape_is_hard_drift_in_words(
    connection: psycopg.Connection, change: str
) -> None:
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute(change)
    drift = compare(before, fingerprint(connection, table))
    for expected in CHANGES[change]:
        assert any(words.startswith(expected) for words in drift.hard), drift


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("GRANT SELECT ON t TO PUBLIC", "the table's grants changed"),
        ("GRANT SELECT (n) ON t TO PUBLIC", "column n: grants changed"),
        ("COMMENT ON COLUMN t.n IS 'x'", "the table's comments changed"),
        ("ALTER TABLE t SET (fillfactor = 70)", "the table's options changed"),
        ("ALTER TABLE t ALTER n SET STATISTICS 9", "column n: statistics target changed"),
        ("ALTER TABLE t ALTER n SET (n_distinct = 5)", "column n: options changed"),
        ("ALTER TABLE t ENABLE ROW LEVEL SECURITY", "row security public.t was changed"),
        ("CREATE POLICY p ON t USING (true)", "policy p on public.t was added"),
        (
            "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING",
            "rule r on public.t was added",
        ),
        (
            "CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()",
            "trigger g on public.t was added",
        ),
        ("CREATE VIEW v AS SELECT n FROM t", 'dependent "_RETURN" on public.v was added'),
        (
            "CREATE FUNCTION g(t) RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "dependent public.g(public.t) was added",
        ),
    ],
)
def test_a_change_that_the_swap_carries_is_soft_drift(
    connection: psycopg.Connection, change: str, words: str
) -> None:
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute(change)
    drift = compare(before, fingerprint(connection, table))
    assert (drift.hard, drift.rewritten) == ((), ())
    assert words in drift.soft


def test_a_foreign_key_that_comes_to_point_to_the_table_is_soft_drift(
    connection: psycopg.Connection,
) -> None:
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute("CREATE TABLE refers (n int REFERENCES t)")
    drift = compare(before, fingerprint(connection, table))
    assert not drift.hard
    assert drift.soft[0].startswith("inbound foreign key refers_n_fkey of ")


def test_a_dependent_that_is_dropped_at_this_moment_is_no_error(
    connection: psycopg.Connection,
) -> None:
    """The catalogs' rows are read with a snapshot, the names of what they mean without one."""
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute(
        "INSERT INTO pg_depend VALUES ('pg_rewrite'::regclass, 4000000000, 0,"
        " 'pg_class'::regclass, %s, 0, 'n')",
        [table.oid],
    )
    drift = compare(before, fingerprint(connection, table))
    assert (drift.hard, drift.soft) == ((), ("dependent 4000000000 was added",))


@pytest.mark.parametrize("change", ["VACUUM FULL t", "CLUSTER t USING t_pkey", "TRUNCATE t"])
def test_a_rewrite_shows_in_the_file_nodes_alone(
    connection: psycopg.Connection, change: str
) -> None:
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute(change)
    if "CLUSTER" in change:  # it also sets a mark, which is not hard drift
        connection.execute("ALTER TABLE t SET WITHOUT CLUSTER")
    drift = compare(before, fingerprint(connection, table))
    assert (drift.hard, drift.soft, drift.rewritten) == ((), (), ("public.t",))


@pytest.mark.parametrize(
    "quiet", ["ANALYZE t", "VACUUM t", "REINDEX TABLE CONCURRENTLY t", "SELECT 1"]
)
def test_upkeep_is_no_drift(connection: psycopg.Connection, quiet: str) -> None:
    table = _example(connection)
    before = fingerprint(connection, table)
    connection.execute(quiet)
    assert not compare(before, fingerprint(connection, table))


def test_partitions_that_come_go_or_are_rewritten_are_seen(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE TABLE p (a int PRIMARY KEY) PARTITION BY LIST (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)"
    )
    table = read_table(connection, "p").relation
    before = fingerprint(connection, table)
    connection.execute("VACUUM FULL p1")
    assert compare(before, fingerprint(connection, table)).rewritten == ("public.p1",)
    connection.execute("CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    assert compare(before, fingerprint(connection, table)).hard == (
        "partition public.p2 was added",
    )
    connection.execute("ALTER TABLE p DETACH PARTITION p2; ALTER TABLE p1 REPLICA IDENTITY FULL")
    assert compare(before, fingerprint(connection, table)).hard == (
        "partition public.p1 was changed",
    )


def test_a_fingerprint_is_kept_in_the_catalog(connection: psycopg.Connection) -> None:
    before = fingerprint(connection, _example(connection))
    assert Fingerprint.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_a_fingerprint_waits_for_no_lock(connection: psycopg.Connection, database: str) -> None:
    table = _example(connection)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        connection.execute("SET lock_timeout = '10ms'")
        fingerprint(connection, table)


def test_a_table_that_is_gone_is_drift(connection: psycopg.Connection) -> None:
    table = _example(connection)
    connection.execute("DROP TABLE t")
    with pytest.raises(SchemaDrift, match="is gone"):
        fingerprint(connection, table)
    with pytest.raises(UsageError):
        read_relation(connection, table.oid)


def _example(connection: psycopg.Connection) -> Relation:
    connection.execute(
        "CREATE TABLE t (n int PRIMARY KEY, note text, CONSTRAINT big CHECK (n < 100));"
        "ALTER TABLE t ADD CONSTRAINT late CHECK (n < 50) NOT VALID;"
        "CREATE INDEX t_note ON t (note);"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    return read_table(connection, "t").relation
