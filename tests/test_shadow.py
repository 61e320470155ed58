"""Building the shadow: what is cloned, what is set aside, and what is refused."""

from __future__ import annotations

import re

import psycopg
import pytest
from psycopg import sql

from restructure.errors import NotNow, PlanError, UsageError
from restructure.model.names import Names
from restructure.plan.load import parse_plan
from restructure.postgres.script import Script
from restructure.shape.shadow import Shadow, build_shadow
from restructure.shape.starter import starter_plan
from restructure.shape.table import read_relation, read_table
from tests.shape_workbench import JOB, SCHEMA, build, copy, finish, plan, refusal, swap

RICH = """
CREATE TABLE customers (id int PRIMARY KEY, region text NOT NULL, UNIQUE (region, id));
CREATE TABLE t (
    id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME "Odd seq" START 10 INCREMENT 3 CACHE 5 CYCLE)
        PRIMARY KEY,
    customer int NOT NULL REFERENCES customers ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    region text CONSTRAINT named_not_null NOT NULL,
    parent int REFERENCES t,
    number serial,
    amount numeric(10,2) DEFAULT 1.5 CONSTRAINT positive CHECK (amount >= 0),
    doubled numeric GENERATED ALWAYS AS (amount * 2) STORED,
    gone int,
    note text COLLATE "C",
    span int4range,
    CONSTRAINT pair FOREIGN KEY (region, customer) REFERENCES customers (region, id) MATCH FULL,
    CONSTRAINT both_unique UNIQUE (note, amount) INCLUDE (number) WITH (fillfactor = 70) DEFERRABLE,
    CONSTRAINT apart EXCLUDE USING gist (span WITH &&) WHERE (amount > 5)
) WITH (fillfactor = 80, toast.autovacuum_enabled = false);
ALTER TABLE t DROP COLUMN gone;
ALTER TABLE t ADD CONSTRAINT late CHECK (amount < 1000) NOT VALID;
ALTER TABLE t ADD CONSTRAINT late_key FOREIGN KEY (parent) REFERENCES customers NOT VALID;
CREATE INDEX latest ON t (number DESC NULLS LAST) INCLUDE (note) WHERE note = '100%';
CREATE UNIQUE INDEX "Odd Index" ON t (lower(note), id) WITH (fillfactor = 60);
CREATE INDEX computed ON t ((amount * 2), note text_pattern_ops);
CREATE INDEX nulls ON t USING hash (note);
ALTER INDEX computed ALTER COLUMN 1 SET STATISTICS 300;
ALTER TABLE t ALTER note SET STATISTICS 500, ALTER note SET (n_distinct = -0.5),
    ALTER note SET STORAGE EXTERNAL, ALTER note SET COMPRESSION pglz;
ALTER TABLE t CLUSTER ON "Odd Index";
ALTER TABLE t REPLICA IDENTITY USING INDEX t_pkey;
COMMENT ON COLUMN t.note IS '50% off';
COMMENT ON CONSTRAINT positive ON t IS 'yes';
COMMENT ON CONSTRAINT both_unique ON t IS 'both';
COMMENT ON INDEX computed IS 'two times';
"""

COLUMNS = """
SELECT attnum, attname, format_type(atttypid, atttypmod), attnotnull, attgenerated, attstorage,
       attcompression, coalesce(attstattarget, -1), attoptions, attcollation,
       col_description(attrelid, attnum)
FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname
"""
INDEXES = """
SELECT c.relname, pg_get_indexdef(indexrelid), indisclustered, indisreplident, reloptions,
       obj_description(indexrelid), (SELECT array_agg(attstattarget ORDER BY attnum)
                                     FROM pg_attribute WHERE attrelid = indexrelid)
FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = %s::regclass ORDER BY 1
"""
CONSTRAINTS = """
SELECT conname, contype, pg_get_constraintdef(oid), convalidated, condeferrable,
       obj_description(oid, 'pg_constraint')
FROM pg_constraint WHERE conrelid = %s::regclass ORDER BY 1
"""


def described(connection: psycopg.Connection, table: str) -> list[str]:
    """All that makes the table's shape, with the schema taken out."""
    lines = [
        str(row[1:] if query is COLUMNS else row)
        for query in (COLUMNS, INDEXES, CONSTRAINTS)
        for row in connection.execute(query, [table]).fetchall()
    ]
    options = connection.execute(
        "SELECT c.reloptions, t.reloptions, c.relreplident FROM pg_class c"
        " LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = %s::regclass",
        [table],
    ).fetchone()
    return [re.sub(rf"\b({SCHEMA}|public|retired)\.", "", line) for line in [*lines, str(options)]]


def test_a_clone_has_everything_under_its_own_name(connection: psycopg.Connection) -> None:
    connection.execute(RICH)
    before = described(connection, "t")
    source = read_table(connection, "t")
    shadow = build(connection, plan(), source)
    finish(connection, shadow, "key", "index")
    swap(connection, source, shadow)
    connection.execute("DROP TABLE retired.t CASCADE")
    finish(connection, shadow, "after")
    assert described(connection, "public.t") == before


def test_nothing_that_slows_or_hinders_is_on_the_empty_shadow(
    connection: psycopg.Connection,
) -> None:
    connection.execute(RICH)
    build(connection, plan())
    assert connection.execute(INDEXES, [f"{SCHEMA}.t"]).fetchall() == []
    kinds = {
        row[:2]
        for row in connection.execute(CONSTRAINTS, [f"{SCHEMA}.t"]).fetchall()
        if row[1] != "n"
    }
    assert kinds == {("positive", "c")}
    identity = connection.execute(
        "SELECT attidentity FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'id'",
        [f"{SCHEMA}.t"],
    ).fetchone()
    assert identity == ("d",)


def test_the_order_is_key_index_swap_after(connection: psycopg.Connection) -> None:
    connection.execute(RICH)
    shadow = build(connection, plan())
    moments = [aside.moment for aside in shadow.set_aside]
    assert moments == sorted(moments, key=["key", "index", "swap", "after"].index)
    by_moment = {m: {a.name for a in shadow.set_aside if a.moment == m} for m in moments}
    assert by_moment["key"] == {"t_pkey"}
    assert by_moment["swap"] == {
        *("id", "t_customer_fkey", "t_parent_fkey", "pair", "late", "late_key")
    }
    assert by_moment["after"] == {"t_customer_fkey", "t_parent_fkey", "pair"}


def test_only_access_share_is_taken_and_parents_are_not_touched(
    connection: psycopg.Connection,
) -> None:
    connection.execute(RICH)
    with connection.transaction():
        build_shadow(Script(connection), read_table(connection, "t"), plan(), Names.of(JOB))
        rows = connection.execute(
            "SELECT c.relname, l.mode FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE pid = pg_backend_pid() AND relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert set(rows) == {("t", "AccessShareLock")}


def test_an_identity_keeps_name_and_options_and_widens_with_its_column(
    connection: psycopg.Connection,
) -> None:
    connection.execute(RICH)
    build(connection, plan(alter=["ALTER id TYPE bigint"]))
    query = (
        "SELECT seqtypid::regtype::text, seqstart, seqincrement, seqmin, seqcache, seqcycle, seqmax"
        " FROM pg_sequence WHERE seqrelid = %s::regclass"
    )
    old = connection.execute(query, ['public."Odd seq"']).fetchone()
    new = connection.execute(query, [f'{SCHEMA}."Odd seq"']).fetchone()
    assert old == ("integer", 10, 3, 1, 5, True, 2**31 - 1)
    assert new == ("bigint", 10, 3, 1, 5, True, 2**63 - 1)


def test_identities_may_exchange_their_sequences_names(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME t_b_seq) PRIMARY KEY,"
        " b int GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME t_id_seq))"
    )
    build(connection, plan())
    for column, sequence in (("id", "t_b_seq"), ("b", "t_id_seq")):
        row = connection.execute(
            "SELECT pg_get_serial_sequence(%s, %s)", [f"{SCHEMA}.t", column]
        ).fetchone()
        assert row == (f"{SCHEMA}.{sequence}",)


def test_a_serial_goes_on_drawing_from_its_own_sequence(connection: psycopg.Connection) -> None:
    connection.execute("CREATE TABLE t (id serial PRIMARY KEY)")
    build(connection, plan(alter=["ALTER id TYPE bigint"]))
    row = connection.execute(
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = %s::regclass",
        [f"{SCHEMA}.t"],
    ).fetchone()
    assert row == ("nextval('t_id_seq'::regclass)",)


def test_a_tablespace_is_kept(connection: psycopg.Connection) -> None:
    name = f"ts_{connection.info.backend_pid}"
    connection.execute("SET allow_in_place_tablespaces = on")
    connection.execute(f"CREATE TABLESPACE {name} LOCATION ''")
    try:
        connection.execute(
            f"CREATE TABLE t (id int PRIMARY KEY USING INDEX TABLESPACE {name}, n int,"
            f" CONSTRAINT u UNIQUE (n) WITH (fillfactor = 50) USING INDEX TABLESPACE {name}"
            f" DEFERRABLE INITIALLY DEFERRED) TABLESPACE {name};"
            f"CREATE INDEX i ON t (n) WITH (fillfactor = 50) TABLESPACE {name} WHERE n > 0"
        )
        shadow = build(connection, plan())
        finish(connection, shadow, "key", "index")
        rows = connection.execute(
            "SELECT c.relname, spcname, c.reloptions FROM pg_class c LEFT JOIN pg_tablespace s"
            " ON s.oid = c.reltablespace WHERE relnamespace = %s::regnamespace ORDER BY 1",
            [SCHEMA],
        ).fetchall()
        half = ["fillfactor=50"]
        plain = [("t", name, None), ("t_pkey", name, None)]
        assert rows == [("i", name, half), *plain, ("u", name, half)]
    finally:
        connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; DROP TABLE IF EXISTS t")
        connection.execute(f"DROP TABLESPACE {name}")


def test_alter_may_change_and_drop_what_the_clone_has(connection: psycopg.Connection) -> None:
    connection.execute(RICH)
    shadow = build(
        connection,
        plan(
            alter=[
                "DROP CONSTRAINT t_customer_fkey",
                "RENAME CONSTRAINT pair TO couple",
                "DROP COLUMN parent",
                "DROP CONSTRAINT late",
                "DROP CONSTRAINT positive, ADD CONSTRAINT positive CHECK (amount > 1)",
                "DROP CONSTRAINT both_unique",
                'ADD CONSTRAINT "both%unique" UNIQUE (note)',
                "REPLICA IDENTITY FULL",
                "ADD CONSTRAINT later CHECK (number > 0) NOT VALID",
            ]
        ),
    )
    names = {aside.name: aside.statement for aside in shadow.set_aside}
    assert names.keys() == {
        *("t_pkey", "apart", "latest", "Odd Index", "computed", "nulls", "both%unique"),
        *("id", "couple", "later", "replica identity"),
    }
    assert names["couple"] == 'ALTER TABLE "public"."t" VALIDATE CONSTRAINT "couple"'
    assert names["replica identity"].endswith("REPLICA IDENTITY FULL")
    finish(connection, shadow, "key", "index")


def test_a_check_that_old_rows_break_does_not_stop_the_copy(
    connection: psycopg.Connection,
) -> None:
    connection.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, -1)")
    connection.execute("ALTER TABLE t ADD CONSTRAINT late CHECK (n > 0) NOT VALID")
    source = read_table(connection, "t")
    shadow = build(connection, plan(), source)
    copy(connection, source, shadow)
    swap(connection, source, shadow)
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute("INSERT INTO t VALUES (2, -1)")
    rows = connection.execute(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"
    ).fetchall()
    assert rows == [(False,)]


@pytest.mark.pg_at_least(18)
def test_constraints_of_18_are_kept(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b int CONSTRAINT b_there NOT NULL NO INHERIT,"
        " c int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL,"
        " CONSTRAINT unchecked CHECK (a > 0) NOT ENFORCED);"
        "INSERT INTO t (id, b) VALUES (1, 1);"
        "ALTER TABLE t ADD CONSTRAINT a_there NOT NULL a NOT VALID;"
        "ALTER TABLE t ADD CONSTRAINT refers FOREIGN KEY (c) REFERENCES t NOT ENFORCED"
    )
    before = described(connection, "t")
    source = read_table(connection, "t")
    shadow = build(connection, plan(), source)
    copy(connection, source, shadow)
    finish(connection, shadow, "key", "index")
    swap(connection, source, shadow)
    connection.execute("DROP TABLE retired.t CASCADE")
    finish(connection, shadow, "after")
    assert described(connection, "public.t") == before


TREE = """
CREATE TABLE customers (id int PRIMARY KEY);
CREATE TABLE t (id int, at date, v varchar(30) COLLATE "C",
    customer int NOT NULL REFERENCES customers, PRIMARY KEY (id, at), CONSTRAINT c CHECK (id > 0))
    PARTITION BY RANGE (at);
CREATE TABLE "Ünten" PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2030-01-01')
    PARTITION BY RANGE (at);
CREATE TABLE leaf (v varchar(30) COLLATE "C", junk int, id int NOT NULL, at date NOT NULL,
    customer int NOT NULL DEFAULT 7,
    CONSTRAINT mine CHECK (id < 1000), CONSTRAINT c CHECK (id > 0));
ALTER TABLE leaf DROP COLUMN junk;
ALTER TABLE "Ünten" ATTACH PARTITION leaf FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
CREATE TABLE rest PARTITION OF t DEFAULT WITH (fillfactor = 50);
CREATE INDEX ON t (v);
CREATE INDEX leaf_only ON leaf (customer);
CREATE UNIQUE INDEX rest_only ON rest (id, at);
ALTER TABLE rest REPLICA IDENTITY USING INDEX rest_only;
ALTER TABLE leaf REPLICA IDENTITY FULL;
"""


def test_a_partitioned_source_is_cloned_with_its_whole_tree(
    connection: psycopg.Connection,
) -> None:
    connection.execute(TREE)
    source = read_table(connection, "t")
    before = {
        member.name: described(connection, str(member.identifier.as_string()))
        for member in source.tree
    }
    bounds = _bounds(connection)
    shadow = build(connection, plan(), source)
    assert [branch.name for branch in shadow.branches] == ["Ünten"]
    assert sorted(leaf.name for leaf in shadow.leaves) == ["leaf", "rest"]
    connection.execute("INSERT INTO customers VALUES (7)")
    connection.execute("INSERT INTO t VALUES (1, '2021-01-01', 'a', 7), (2, '2040-01-01', 'b', 7)")
    copy(connection, source, shadow)
    finish(connection, shadow, "key", "index")
    invalid = connection.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone()
    assert invalid == (0,)
    swap(connection, source, shadow)
    connection.execute("DROP TABLE retired.t CASCADE")
    finish(connection, shadow, "after")
    for member in source.tree:
        assert described(connection, member.identifier.as_string()) == before[member.name]
    assert _bounds(connection) == bounds


def test_alter_reaches_every_partition(connection: psycopg.Connection) -> None:
    connection.execute(TREE)
    shadow = build(connection, plan(alter=["ALTER id TYPE bigint", "ADD note text"]))
    for leaf in shadow.leaves:
        column = read_relation(connection, leaf.oid).column("id")
        assert column is not None and column.type_sql == "bigint"


def test_a_plain_table_becomes_a_partitioned_one(connection: psycopg.Connection) -> None:
    connection.execute(
        "CREATE TABLE customers (id int PRIMARY KEY);"
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz NOT NULL, customer int)"
    )
    ddl = """
        CREATE TABLE t (id bigint, at timestamptz,
                        customer int CONSTRAINT buyer REFERENCES customers, PRIMARY KEY (id, at))
            PARTITION BY RANGE (at);
        CREATE TABLE t_2026 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
            PARTITION BY HASH (id);
        CREATE TABLE t_2026_a PARTITION OF t_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE t_2026_b PARTITION OF t_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE t_rest PARTITION OF t DEFAULT;
        CREATE INDEX by_customer ON t (customer);
        COMMENT ON INDEX by_customer IS 'look';
    """
    source = read_table(connection, "t")
    shadow = build(connection, plan(create=ddl), source)
    assert {leaf.name for leaf in shadow.leaves} == {"t_2026_a", "t_2026_b", "t_rest"}
    connection.execute(
        "INSERT INTO customers SELECT generate_series(1, 99);"
        "INSERT INTO t SELECT n, '2025-12-25'::timestamptz + n * interval '1 day', n"
        " FROM generate_series(1, 99) n"
    )
    copy(connection, source, shadow)
    finish(connection, shadow, "key", "index")
    swap(connection, source, shadow)
    finish(connection, shadow, "after")
    assert connection.execute("SELECT count(*), count(DISTINCT tableoid) FROM t").fetchone() == (
        99,
        3,
    )
    foreign = connection.execute(
        "SELECT conrelid::regclass::text, conname, convalidated, conparentid <> 0"
        " FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
        " ORDER BY 1"
    ).fetchall()
    assert foreign == [
        (table, "buyer", True, table != "t")
        for table in ("t", "t_2026", "t_2026_a", "t_2026_b", "t_rest")
    ]


ALTER_REFUSED = {
    "a syntax error": ("ADD COLUM", "syntax error", "3:"),
    "no such column": ("DROP COLUMN nope", 'column "nope" of relation "t" does not exist', "3:"),
    "no such type": ("ADD x frob", 'type "frob" does not exist', "3:"),
    "a column twice": ("ADD note text", 'column "note" of relation "t" already exists', "3:"),
    "two statements": ("ADD x int; DROP TABLE t", "multiple commands", "3:"),
    "a name": ("RENAME TO other", "changes the table's name", "3:"),
    "a schema": ("SET SCHEMA public", "changes the table's schema|already exists", "3:"),
    "an owner": ("OWNER TO somebody", "changes the table's owner", "3:"),
    "unlogged": ("SET UNLOGGED", "changes the table's persistence", "3:"),
    "inheritance": ("INHERIT other_t", "changes the table's parents|also acts on", "3:"),
    "row security": ("ENABLE ROW LEVEL SECURITY", "changes the table's row level security", "3:"),
    "forced row security": ("FORCE ROW LEVEL SECURITY", "row level security", "3:"),
    "a trigger": ("DISABLE TRIGGER boom", 'trigger "boom"', "3:"),
    "attaching": ("ATTACH PARTITION other FOR VALUES IN (1)", "not partitioned|cannot", "3:"),
    "an odd type": ("ADD x int[](", "syntax error", "3:"),
    "a taken index": ("ADD CONSTRAINT t_pkey UNIQUE (note)", "already exists", "3:"),
    "a taken name": ("ADD CONSTRAINT other UNIQUE (note)", "name conflict", "3:"),
    "a view in the way": ("ALTER nosuch TYPE int", "does not exist", "3:"),
    "no cast": ("ALTER note TYPE date", "cannot be cast automatically", "3:"),
    "USING": ("ALTER note TYPE int USING length(note)", "belongs under columns", "3:"),
    "USING, same type": ("ALTER note TYPE text USING upper(note)", "belongs under columns", "3:"),
}


@pytest.fixture
def simple(connection: psycopg.Connection) -> psycopg.Connection:
    connection.execute(
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE other (i int);"
        "CREATE TABLE other_t (id int NOT NULL, note text); CREATE TYPE mood AS ENUM ('ok')"
    )
    return connection


@pytest.mark.parametrize("case", ALTER_REFUSED)
def test_a_clause_is_refused_at_its_line(simple: psycopg.Connection, case: str) -> None:
    clause, words, place = ALTER_REFUSED[case]
    simple.execute("DROP ROLE IF EXISTS somebody; CREATE ROLE somebody")
    said = refusal(simple, plan(alter=["ADD first int", clause]))
    assert any(word in said for word in words.split("|")), said
    assert said.startswith(f"p.yaml:{place}")


def test_using_is_taken_where_the_plan_says_what_fills_the_column(
    simple: psycopg.Connection,
) -> None:
    clause = "ALTER note TYPE int USING length(note)"
    build(simple, plan(alter=[clause], columns={"note": "length(note)"}))


def test_using_elsewhere_is_no_matter(simple: psycopg.Connection) -> None:
    simple.execute("ALTER TABLE t ADD span int4range")
    build(simple, plan(alter=["ADD EXCLUDE USING gist (span WITH &&)", "ALTER id TYPE bigint"]))


CREATE_REFUSED = {
    "a syntax error": ("CREAT TABLE t ()", "syntax error"),
    "another name": ("CREATE TABLE u (id int)", "makes no table named t"),
    "nothing": ("SELECT 1", "makes no table named t"),
    "a commit": ("CREATE TABLE t (id int PRIMARY KEY); COMMIT", "transaction commands"),
    "a rollback": ("ROLLBACK; CREATE TABLE t (id int PRIMARY KEY)", "transaction commands"),
    "a view": ("CREATE VIEW t AS SELECT * FROM public.t", "must be a plain or partitioned table"),
    "an unlogged table": ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY, note text)", "UNLOGGED"),
    "a temporary table": ("CREATE TEMP TABLE t (id int PRIMARY KEY)", "makes no table named t"),
    "an unlogged leaf": (
        "CREATE TABLE t (id int PRIMARY KEY, note text) PARTITION BY LIST (id);"
        " CREATE UNLOGGED TABLE l PARTITION OF t DEFAULT",
        "partition l must be a logged heap table",
    ),
    "a trigger": (
        "CREATE TABLE t (id int PRIMARY KEY, note text);"
        " CREATE TRIGGER x BEFORE INSERT ON t EXECUTE FUNCTION"
        " suppress_redundant_updates_trigger()",
        "must not have triggers",
    ),
    "a rule": (
        "CREATE TABLE t (id int PRIMARY KEY, note text);"
        " CREATE RULE x AS ON DELETE TO t DO INSTEAD NOTHING",
        "must not have rules",
    ),
    "row security": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "row level security",
    ),
    "a typed table": ("CREATE TABLE t OF pair (id PRIMARY KEY)", "typed table"),
    "a child": ("CREATE TABLE t (PRIMARY KEY (id)) INHERITS (public.t)", "inherit|also acts"),
    "another table": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE x ()",
        "table x",
    ),
    "a type": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TYPE x AS ENUM ()",
        "makes type x besides",
    ),
    "a function": (
        "CREATE TABLE t (id int PRIMARY KEY, note text);"
        " CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "makes function x besides",
    ),
    "a free sequence": (
        "CREATE SEQUENCE x; CREATE TABLE t (id int PRIMARY KEY, note text)",
        "makes sequence x besides",
    ),
    "a drop elsewhere": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); DROP TABLE public.other",
        "also acts on",
    ),
    "a table elsewhere": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE TABLE public.x ()",
        "also acts on public.x",
    ),
    "a write elsewhere": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO other VALUES (1)",
        "also acts on public.other",
    ),
    "a taken name": (
        "CREATE TABLE t (id int PRIMARY KEY, note text); CREATE INDEX other ON t (note)",
        "name conflict",
    ),
    "an error in a line": ("CREATE TABLE t (\n  id int PRIMARY KEY,\n  note frob)", "frob"),
}


@pytest.mark.parametrize("case", CREATE_REFUSED)
def test_ddl_is_refused(simple: psycopg.Connection, case: str) -> None:
    simple.execute("CREATE TYPE pair AS (id int, note text)")
    ddl, words = CREATE_REFUSED[case]
    said = refusal(simple, plan(create=ddl))
    assert any(word in said for word in words.split("|")), said
    assert said.startswith("p.yaml:3:")


def test_an_error_in_ddl_points_at_its_line(simple: psycopg.Connection) -> None:
    text = "name: job\ntable: t\ncreate: |\n  CREATE TABLE t (\n    id int,\n    note frob\n  );\n"
    assert refusal(simple, parse_plan(text, "p.yaml")).startswith("p.yaml:6:10: create: ")


def test_a_foreign_key_of_the_plan_comes_in_the_swap(simple: psycopg.Connection) -> None:
    simple.execute("ALTER TABLE other ADD PRIMARY KEY (i)")
    shadow = build(simple, plan(alter=["ADD o int CONSTRAINT to_other REFERENCES other"]))
    swapped = [a.statement for a in shadow.set_aside if a.moment == "swap"]
    assert swapped == [
        'ALTER TABLE "public"."t" ADD CONSTRAINT "to_other"'
        " FOREIGN KEY (o) REFERENCES public.other(i) NOT VALID"
    ]


def test_a_lock_that_is_not_had_at_once_is_not_waited_for(
    simple: psycopg.Connection, database: str
) -> None:
    source = read_table(simple, "t")
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(NotNow, match="was not had"):
            build(simple, plan(), source)
    build(simple, plan(), source)
    assert simple.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_the_session_is_left_as_it_was(simple: psycopg.Connection) -> None:
    simple.execute("SET search_path = public; SET datestyle = 'SQL, DMY'; SET lock_timeout = '7s'")
    with simple.transaction():
        build_shadow(Script(simple), read_table(simple, "t"), plan(), Names.of(JOB))
        for setting, value in {
            "search_path": "public",
            "datestyle": "SQL, DMY",
            "lock_timeout": "7s",
        }.items():
            assert simple.execute(f"SHOW {setting}").fetchone() == (value,)


def test_a_script_shows_what_was_run(simple: psycopg.Connection) -> None:
    """What ``plan`` shows, run by hand, makes the same shadow."""
    simple.execute("CREATE INDEX i ON t (note) WHERE note <> '5%'")
    script = Script(simple)
    loaded = plan(alter=["ADD x int DEFAULT 5", "ALTER id TYPE bigint"])
    with simple.transaction(force_rollback=True):
        build_shadow(script, read_table(simple, "t"), loaded, Names.of(JOB))
        first = described(simple, f"{SCHEMA}.t")
    for step in script.steps:
        simple.execute(step.text)
    assert described(simple, f"{SCHEMA}.t") == first


def test_a_shadow_schema_that_is_there_is_not_taken(simple: psycopg.Connection) -> None:
    build(simple, plan())
    with pytest.raises(UsageError, match="exists already"):
        build(simple, plan())


def test_an_old_invalid_index_is_not_cloned(simple: psycopg.Connection) -> None:
    simple.execute("INSERT INTO t VALUES (1, 'a'), (2, 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        simple.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON t (note)")
    shadow: Shadow = build(simple, plan())
    assert [aside.name for aside in shadow.set_aside] == ["t_pkey"]


@pytest.mark.parametrize("clauses", [[], ["ADD \"x: #\" text DEFAULT 'a # b'", "ADD y int"]])
@pytest.mark.parametrize("name", ["t", 'Wei"rd: #\n表', "x" * 63])
def test_a_starter_plan_is_a_plan(
    connection: psycopg.Connection, name: str, clauses: list[str]
) -> None:
    table = sql.Identifier(name).as_string()
    connection.execute(f'CREATE TABLE {table} ("a: b\n#" int PRIMARY KEY, b text)')
    source = read_table(connection, table)
    loaded = parse_plan(starter_plan(connection, source, clauses))
    assert loaded.plan.alter == tuple(clauses)
    assert read_table(connection, loaded.plan.table) == source
    with connection.transaction():
        build_shadow(Script(connection), source, loaded, Names.of(loaded.plan.name))


def test_a_starter_plan_is_right_in_its_comments_too(simple: psycopg.Connection) -> None:
    text = starter_plan(simple, read_table(simple, "t"), ["ADD id_text text"])
    uncommented = re.sub(
        r"(?m)^# (?=columns|reverse|where|copy|throttle|verify|cutover|  id(_text)?:)", "", text
    )
    loaded = parse_plan(uncommented)
    assert loaded.plan.columns and loaded.plan.where and loaded.plan.throttle.wal_limit
    with pytest.raises(PlanError):  # id_text is not what fills id
        parse_plan(uncommented + "drop: [id]\ndrop: [id]\n")


def _bounds(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class"
        " WHERE relispartition AND relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        " ORDER BY 1"
    ).fetchall()
