"""A table that is part of another: the new one takes its place there, and no row is looked at."""

from __future__ import annotations

import threading

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.model.names import Names
from restructure.postgres.script import Script
from restructure.shape.carry import membership
from restructure.shape.carry.bound import bound_checks, hold_to_bound
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.carry.swap import run_swap, swap_steps
from restructure.shape.fingerprint import compare, fingerprint
from restructure.shape.made import Shadow
from restructure.shape.table import Table, read_table
from tests.carry.build import dump
from tests.shape_workbench import JOB, build, copy, finish, plan

NAMES = Names.of(JOB)
ROWS = "INSERT INTO p SELECT n, (ARRAY['a','b','c'])[n % 3 + 1], n FROM generate_series(1, 300) n;"
PLACES = {
    "range": """PARTITION BY RANGE (id);
        CREATE TABLE t PARTITION OF p FOR VALUES FROM (MINVALUE) TO (100);
        CREATE TABLE high PARTITION OF p FOR VALUES FROM (100) TO (400)""",
    "beside an empty default": """PARTITION BY RANGE (id);
        CREATE TABLE t PARTITION OF p FOR VALUES FROM (1) TO (400);
        CREATE TABLE rest PARTITION OF p DEFAULT""",
    "the default": """PARTITION BY LIST (kind);
        CREATE TABLE a PARTITION OF p FOR VALUES IN ('a', 'b');
        CREATE TABLE t PARTITION OF p DEFAULT""",
    "the only one, and the default": """PARTITION BY LIST (kind);
        CREATE TABLE t PARTITION OF p DEFAULT""",
    "list": """PARTITION BY LIST (kind);
        CREATE TABLE t PARTITION OF p FOR VALUES IN ('a', 'b');
        CREATE TABLE c PARTITION OF p FOR VALUES IN ('c')""",
    "hash": """PARTITION BY HASH (id);
        CREATE TABLE t PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE h1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1)""",
    "two levels down": """PARTITION BY LIST (kind);
        CREATE TABLE a PARTITION OF p FOR VALUES IN ('a') PARTITION BY HASH (id);
        CREATE TABLE t PARTITION OF a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE a1 PARTITION OF a FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE rest PARTITION OF p DEFAULT""",
    "with partitions of its own": """PARTITION BY LIST (kind);
        CREATE TABLE t PARTITION OF p FOR VALUES IN ('a', 'c') PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
        CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (400);
        CREATE TABLE rest PARTITION OF p DEFAULT""",
}
DECORATION = """
CREATE SCHEMA restructure;
CREATE INDEX p_v ON p (v); CREATE INDEX own ON t (v, id); ALTER TABLE p ADD CHECK (v > 0);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noisy BEFORE UPDATE ON p FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE t ALTER v SET DEFAULT 7, ALTER v SET STATISTICS 50, ADD CONSTRAINT small CHECK (v < 999);
COMMENT ON TABLE t IS 'a part'; COMMENT ON COLUMN t.v IS 'a column';
COMMENT ON INDEX t_pkey IS 'the key';
"""


def make(connection: psycopg.Connection, place: str, last: str = "v int") -> None:
    columns = f"id int, kind text, {last}, PRIMARY KEY (id, kind)"
    connection.execute(f"CREATE TABLE p ({columns}) {place}")


def prepared(connection: psycopg.Connection, **sections: object) -> tuple[Table, Shadow]:
    """The shadow filled, with its indexes, and ready for the swap."""
    source = read_table(connection, "t")
    shadow = build(connection, plan(**sections), source)
    copy(connection, source, shadow)
    finish(connection, shadow, "key", "index")
    prepare_shadow(connection, source, shadow, NAMES)
    return source, shadow


def swapped(connection: psycopg.Connection, source: Table, shadow: Shadow) -> list[str]:
    """Swap as the cutover does; what PostgreSQL tells of its work in it."""
    composed = swap_steps(connection, source, shadow, NAMES)
    notes: list[str] = []
    connection.add_notice_handler(lambda note: notes.append(note.message_primary or ""))
    with connection.transaction():
        for step in composed.first:
            connection.execute(step.text)
        connection.execute("SET LOCAL client_min_messages = debug1")
        run_swap(connection, composed)
    return [note for note in notes if note.startswith(("verifying", "building", "rewriting"))]


def reasons(connection: psycopg.Connection, **sections: object) -> list[str]:
    """Why the shadow of this plan could not be part of what the source is part of."""
    source = read_table(connection, "t")
    before = connection.execute("SELECT oid, relname FROM pg_class ORDER BY 1").fetchall()
    with connection.transaction(force_rollback=True):
        shadow = build(connection, plan(**sections), source)
        found = list(rehearse(connection, source, shadow, NAMES))
    assert connection.execute("SELECT oid, relname FROM pg_class ORDER BY 1").fetchall() == before
    assert {kind for kind, _ in found} <= {membership.KIND}
    return [reason for _, reason in found]


@pytest.mark.parametrize("place", PLACES)
def test_a_partition_is_replaced_without_a_look_at_its_rows(
    server: Server, database: str, connection: psycopg.Connection, place: str
) -> None:
    make(connection, PLACES[place])
    connection.execute(ROWS + DECORATION)
    before = dump(server, database)
    rows = connection.execute("SELECT tableoid::regclass::text, p.* FROM p ORDER BY id").fetchall()
    old = connection.execute("SELECT 't'::regclass::oid").fetchone()
    assert reasons(connection) == []

    work = swapped(connection, *prepared(connection))

    seen = [note for note in work if "rest" not in note]  # the default one is empty
    assert seen == []
    assert dump(server, database) == before
    now = connection.execute("SELECT tableoid::regclass::text, p.* FROM p ORDER BY id").fetchall()
    assert now == rows
    assert connection.execute("SELECT 't'::regclass::oid").fetchone() != old


KEYS = [
    ("timestamptz", "RANGE ({})", "FROM ('2024-01-01') TO ('2024-02-01')", "'2024-01-15'"),
    ("timestamp", "RANGE (date_trunc('month', {}))", "FROM ('2024-01-01') TO ('2024-01-02')",
     "'2024-01-15'"),
    ("varchar(10)", "LIST ({})", "IN ('x', 'y', NULL)", "NULL"),
    ("char(3)", "LIST ({})", "IN ('x')", "'x'"),
    ("boolean", "LIST ({})", "IN (true)", "true"),
    ("smallint", "LIST ({})", "IN (1, 2)", "1"),
    ("numeric", "RANGE ({})", "FROM (1.5) TO (2)", "1.7"),
    ("uuid", "RANGE ({})", "FROM (MINVALUE) TO (MAXVALUE)", "gen_random_uuid()"),
    ('text COLLATE "C"', "LIST ({})", "IN ('x', 'y')", "'x'"),
    ("mood", "LIST ({})", "IN ('sad', 'so')", "'so'"),
]  # fmt: skip


@pytest.mark.parametrize("case", KEYS, ids=[f"{case[0]} {case[1]}" for case in KEYS])
def test_the_bound_is_proved_for_keys_of_many_types(
    connection: psycopg.Connection, case: tuple[str, str, str, str]
) -> None:
    kind, key, bound, value = case
    connection.execute(
        "CREATE SCHEMA restructure; CREATE TYPE mood AS ENUM ('sad', 'so', 'ok');"
        f"CREATE TABLE p (id int, k {kind}) PARTITION BY {key.format('k')};"
        f"CREATE TABLE t PARTITION OF p FOR VALUES {bound}; ALTER TABLE t ADD PRIMARY KEY (id);"
        f"INSERT INTO p VALUES (1, {value})"
    )
    assert reasons(connection) == []
    assert swapped(connection, *prepared(connection)) == []
    assert connection.execute("SELECT count(*) FROM p").fetchone() == (1,)


@pytest.mark.parametrize(
    ("kind", "key"), [("posint", "k"), ("text", 'k COLLATE "C"')], ids=["domain", "collation"]
)
def test_a_bound_that_cannot_be_proved_is_refused(
    connection: psycopg.Connection, kind: str, key: str
) -> None:
    connection.execute(
        "CREATE DOMAIN posint AS int CHECK (VALUE > 0);"
        f"CREATE TABLE p (id int, k {kind}) PARTITION BY LIST ({key});"
        "CREATE TABLE t PARTITION OF p FOR VALUES IN ('1'); ALTER TABLE t ADD PRIMARY KEY (id)"
    )
    (reason,) = reasons(connection)
    assert reason.startswith("as a partition of public.p: no CHECK can prove")


def test_the_bound_of_a_level_further_up_counts_too(connection: psycopg.Connection) -> None:
    connection.execute(
        'CREATE TABLE p (id int, k text) PARTITION BY LIST (k COLLATE "C");'
        "CREATE TABLE a PARTITION OF p FOR VALUES IN ('x') PARTITION BY RANGE (id);"
        "CREATE TABLE t PARTITION OF a FOR VALUES FROM (1) TO (9); ALTER TABLE t ADD PRIMARY KEY (id)"
    )
    (reason,) = reasons(connection)
    assert reason.startswith("as a partition of public.p: no CHECK can prove")


def test_a_check_of_the_table_above_that_is_not_valid_stays_so(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    make(connection, PLACES["range"])
    connection.execute(ROWS + DECORATION)
    connection.execute("ALTER TABLE p ADD CONSTRAINT late CHECK (v <> 5) NOT VALID")
    before = dump(server, database)
    assert "NOT VALID" in before
    assert reasons(connection) == []

    swapped(connection, *prepared(connection))

    assert dump(server, database) == before
    assert connection.execute("SELECT count(*) FROM p WHERE v = 5").fetchone() == (1,)


def test_a_trigger_of_the_table_above_fires_as_it_did_on_the_partition(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    make(connection, PLACES["range"])
    connection.execute(ROWS + DECORATION)
    connection.execute(
        "ALTER TABLE t DISABLE TRIGGER noisy; COMMENT ON TRIGGER noisy ON t IS 'too loud here'"
    )
    before = dump(server, database)
    assert "DISABLE TRIGGER noisy" in before
    assert reasons(connection) == []

    swapped(connection, *prepared(connection))

    assert dump(server, database) == before
    assert connection.execute(
        "SELECT obj_description(oid) FROM pg_trigger WHERE tgrelid = 't'::regclass"
    ).fetchone() == ("too loud here",)


def test_the_identity_of_the_table_above_goes_on(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE SCHEMA restructure; CREATE TABLE p (id int GENERATED ALWAYS AS IDENTITY, v int,"
        " PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (99);"
        "INSERT INTO p (v) VALUES (1), (2)"
    )
    before = dump(server, database)

    swapped(connection, *prepared(connection))

    assert dump(server, database) == before
    assert connection.execute("INSERT INTO p (v) VALUES (3) RETURNING id").fetchone() == (3,)


CHANGES = {
    "ALTER COLUMN v TYPE bigint": 'different type for column "v"',
    "DROP COLUMN v": 'missing column "v"',
    "ADD COLUMN w int": 'contains column "w" not found in parent',
    "RENAME COLUMN kind TO sort": "column",
    "ALTER COLUMN v DROP NOT NULL": "must be marked NOT NULL",
    "DROP CONSTRAINT p_v_check": 'missing constraint "p_v_check"',
    "DROP CONSTRAINT t_id_v_key": "needs an index for p_key",
}


@pytest.mark.parametrize("clause", CHANGES)
def test_a_change_that_the_table_above_cannot_follow_is_refused_by_its_name(
    connection: psycopg.Connection, clause: str
) -> None:
    make(connection, PLACES["range"], "v int NOT NULL")
    connection.execute("ALTER TABLE p ADD CHECK (v > 0), ADD CONSTRAINT p_key UNIQUE (id, v)")

    (reason,) = reasons(connection, alter=[clause])

    assert reason.startswith("as a partition of public.p: ")
    assert CHANGES[clause] in reason


def test_what_a_partition_may_have_by_itself_can_be_changed(
    connection: psycopg.Connection,
) -> None:
    make(connection, PLACES["range"])
    connection.execute("CREATE SCHEMA restructure")
    connection.execute("CREATE INDEX own ON t (v)")

    assert reasons(connection, alter=["ALTER v SET DEFAULT 5", "ADD CHECK (v < 9)"]) == []


def test_a_default_partition_with_rows_is_refused_until_a_constraint_spares_the_look(
    connection: psycopg.Connection,
) -> None:
    make(connection, PLACES["beside an empty default"])
    connection.execute(DECORATION)
    assert reasons(connection) == []
    connection.execute(
        "INSERT INTO p SELECT n, repeat('x', 99), 1 FROM generate_series(500, 9999) n"
    )

    (reason,) = reasons(connection)

    assert "its default partition public.rest would be looked at" in reason
    connection.execute(reason.partition("spares that: ")[2])
    assert reasons(connection) == []
    assert swapped(connection, *prepared(connection)) == []


def test_rows_that_the_place_does_not_take_are_refused_when_they_are_copied(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "CREATE TABLE p (id int, v int) PARTITION BY LIST (v);"
        "CREATE TABLE t PARTITION OF p FOR VALUES IN (1, 2); ALTER TABLE t ADD PRIMARY KEY (id);"
        "INSERT INTO p VALUES (1, 1), (2, 2)"
    )
    with pytest.raises(psycopg.errors.CheckViolation, match="restructure_bound_"):
        prepared(connection, columns={"v": "v + 1"})


def test_what_is_made_ahead_is_made_once_and_again_when_the_place_demands_more(
    connection: psycopg.Connection,
) -> None:
    """A default partition takes less with every new one beside it."""
    make(connection, PLACES["the default"])
    connection.execute("CREATE SCHEMA restructure")
    source, shadow = prepared(connection)
    before = fingerprint(connection, source.relation)
    assert prepare_shadow(connection, source, shadow, NAMES) == []
    (first,) = bound_checks(connection, shadow.relation)

    connection.execute("CREATE TABLE c PARTITION OF p FOR VALUES IN ('c')")

    assert compare(before, fingerprint(connection, source.relation)).soft == (
        "the table's place changed",
    )
    steps = prepare_shadow(connection, source, shadow, NAMES)
    assert [step.text.split(" CONSTRAINT ")[0].split()[-1] for step in steps] == [
        "DROP", "ADD", "VALIDATE",
    ]  # fmt: skip
    (second,) = bound_checks(connection, shadow.relation)
    assert first != second
    assert swapped(connection, source, shadow) == []


def test_a_table_that_is_part_of_nothing_gets_no_constraint(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    script = Script(connection)
    source, other = read_table(connection, "t"), read_table(connection, "u")
    hold_to_bound(script, source.relation, other.relation)
    assert script.steps == []
    assert membership.KIND.find(connection, source) == []


def test_an_heir_stays_one_of_all_its_parents(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE SCHEMA restructure; CREATE TABLE p (id int, v int CHECK (v > 0));"
        "CREATE TABLE q (w int); CREATE TABLE t (id int PRIMARY KEY, v int, w int,"
        " CONSTRAINT p_v_check CHECK (v > 0)); ALTER TABLE t INHERIT q; ALTER TABLE t INHERIT p;"
        "INSERT INTO t SELECT n, n, n FROM generate_series(1, 9) n"
    )
    before = dump(server, database)
    assert [found.name for found in membership.KIND.find(connection, read_table(connection, "t"))] == [
        "public.q", "public.p",
    ]  # fmt: skip
    assert reasons(connection) == []

    assert swapped(connection, *prepared(connection, alter=["ADD x int"])) == []

    after = dump(server, database)
    assert after.replace(",\n    x integer", "") == before
    assert connection.execute("SELECT count(*) FROM p").fetchone() == (9,)


def test_an_heir_whose_columns_change_is_refused_by_the_parents_name(
    connection: psycopg.Connection,
) -> None:
    connection.execute(
        "CREATE TABLE p (id int); CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t INHERIT p"
    )
    (reason,) = reasons(connection, alter=["ALTER id TYPE bigint"])
    assert reason.startswith('as an heir of public.p: child table "t" has different type')


FOREIGN = {
    "outbound": (
        "ALTER TABLE p ADD CONSTRAINT k FOREIGN KEY (v) REFERENCES other",
        "k on public.p",
    ),
    "inbound": (
        "ALTER TABLE other ADD CONSTRAINT k FOREIGN KEY (id, kind) REFERENCES p (id, kind)",
        "k on public.other",
    ),
    "itself": (
        "ALTER TABLE p ADD CONSTRAINT k FOREIGN KEY (id, kind) REFERENCES p (id, kind)",
        "k on public.p",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_key_of_the_table_above_is_named(
    connection: psycopg.Connection, case: str
) -> None:
    make(connection, PLACES["two levels down"])
    connection.execute("CREATE TABLE other (id int PRIMARY KEY, kind text)")
    source = read_table(connection, "t")
    connection.execute("ALTER TABLE t ADD CONSTRAINT mine FOREIGN KEY (v) REFERENCES other")
    assert membership.KEYS_ABOVE.find(connection, source) == []
    statement, name = FOREIGN[case]
    connection.execute(statement)

    assert [found.name for found in membership.KEYS_ABOVE.find(connection, source)] == [name]


def test_a_foreign_key_of_its_own_is_not_one_of_the_table_above(
    connection: psycopg.Connection,
) -> None:
    make(connection, PLACES["with partitions of its own"])
    connection.execute(
        "CREATE TABLE other (id int, kind text, v int PRIMARY KEY) PARTITION BY RANGE (v);"
        "CREATE TABLE other_1 PARTITION OF other DEFAULT;"
        "ALTER TABLE t ADD FOREIGN KEY (v) REFERENCES other;"
        "ALTER TABLE other ADD FOREIGN KEY (id, kind) REFERENCES t (id, kind);"
        "ALTER TABLE t ADD FOREIGN KEY (id, kind) REFERENCES t (id, kind)"
    )
    assert membership.KEYS_ABOVE.find(connection, read_table(connection, "t")) == []


ABOVE = {
    "partition": "CREATE TABLE p (id int, v int) PARTITION BY RANGE (id);"
    "CREATE TABLE t PARTITION OF p FOR VALUES FROM (0) TO (9); ALTER TABLE t ADD PRIMARY KEY (id)",
    "heir": "CREATE TABLE p (id int, v int); CREATE TABLE t (id int PRIMARY KEY, v int);"
    "ALTER TABLE t INHERIT p",
}


@pytest.mark.parametrize("above", ABOVE)
def test_a_client_that_waited_at_the_table_above_writes_to_the_new_table(
    database: str, connection: psycopg.Connection, above: str
) -> None:
    """It must not have looked up yet who is part of that table."""
    connection.execute(f"CREATE SCHEMA restructure; {ABOVE[above]}; INSERT INTO t VALUES (1, 1)")
    source, shadow = prepared(connection)
    composed = swap_steps(connection, source, shadow, NAMES)

    def write() -> None:
        with psycopg.connect(database, autocommit=True) as client:
            client.execute("UPDATE p SET v = 2")

    client = threading.Thread(target=write)
    with psycopg.connect(database, autocommit=True) as other, connection.transaction():
        for step in composed.first:
            connection.execute(step.text)
        connection.execute("LOCK TABLE ONLY t IN ACCESS EXCLUSIVE MODE")
        client.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database ="
        waiting += " (SELECT oid FROM pg_database WHERE datname = current_database())"
        while other.execute(waiting).fetchone() != (1,):
            assert client.is_alive()
        run_swap(connection, composed)
    client.join()

    assert connection.execute("SELECT v FROM t").fetchone() == (2,)
    assert connection.execute("SELECT v FROM restructure_job_retired.t").fetchone() == (1,)
