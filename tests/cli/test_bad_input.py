"""Bad input, once each through the command: a clear error, its exit code, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from restructure.demo.server import Server
from tests.checks.build import role
from tests.checks.fake_pooler import FakePooler
from tests.cli.command import Running, document, restructure
from tests.fix_server import FreshServer
from tests.pipeline.moments import eventually, wait_until_released
from tests.pipeline.tool import leftovers

TABLE = """
CREATE TABLE t (id integer PRIMARY KEY, note text, n integer);
INSERT INTO t SELECT g, 'private-' || g, g FROM generate_series(1, 50) g;
"""
BIGINT = "name: j\ntable: t\nalter: [ALTER COLUMN id TYPE bigint]\n"
CREATE = "name: j\ntable: t\ncreate: CREATE TABLE t (id bigint PRIMARY KEY, {})\n"

SECRET = "hunter2"

_STATE = """
SELECT c.oid::regclass::text, c.relkind::text, pg_relation_filenode(c.oid), c.relacl::text,
       pg_get_userbyid(c.relowner), c.relreplident::text
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Bad:
    """``place``: line and column where the plan is at fault; None where the database refuses."""

    words: str
    plan: str = BIGINT
    place: str | None = None
    setup: str = TABLE


def expression(text: str, words: str, place: str) -> Bad:
    return Bad(words, f"{BIGINT}columns:\n  note: {text}\n", place)


FILES = {
    "a name that is too long": Bad(
        "44 characters long", BIGINT.replace("name: j", f"name: {'j' * 44}"), "1:1"
    ),
    "a mapping given twice": Bad(
        "'note' is named twice, first on line 5",
        BIGINT + "columns:\n  note: lower(note)\n  note: note\n",
        "6:3",
    ),
    "a plan that is not YAML": Bad("not YAML", "name: j\ntable: [t\nalter: }\n", "3:"),
    "a plan with tabs": Bad("a tab", "name: j\ntable: t\nalter:\n\t- ADD x int\n", "4:1"),
    "a key given twice": Bad("'table' is named twice", BIGINT + "table: u\n", "4:1"),
    "a password in a comment": Bad(
        "holds no secret", f"{BIGINT}# postgresql://me:{SECRET}@db/x\n", "4:3"
    ),
    "a password as a key": Bad("holds no secret", f"{BIGINT}password: {SECRET}\n", "4:1"),
}
"""Refused before the server is asked for anything."""

PLANS = {
    "no such table": Bad("there is no table t", place="2:1", setup=""),
    "an expression with a syntax error": expression("note ||| ||", "operator|syntax error", "5:"),
    "an unknown column in an expression": expression("lower(nope)", '"nope" does not', "5:15"),
    "an expression of the wrong type": Bad(
        "is of type integer but expression is of type jsonb",
        BIGINT + "columns:\n  n: note::jsonb\n",
        "5:6",
    ),
    "a volatile function": expression("note || random()", "random() is volatile", "5:17"),
    "a subquery": expression("(SELECT 'x')", "a subquery looks beyond its own row", "5:9"),
    "an expression of two statements": expression('"note; DROP TABLE t"', 'near ";"', "5:14"),
    "a clause of two statements": Bad(
        "multiple commands", 'name: j\ntable: t\nalter: ["ADD x int; DROP TABLE t"]\n', "3:9"
    ),
    "a column added twice": Bad(
        'column "x" of relation "t" already exists',
        "name: j\ntable: t\nalter: [ADD x int, ADD x int]\n",
        "3:20",
    ),
    "a column created twice": Bad(
        'column "n" specified more than once', CREATE.format("note text, n int, n int"), "3:1"
    ),
    "a column left by silence": Bad(
        "nothing in the new table reads the old column 'n'", CREATE.format("note text"), "3:1"
    ),
    "a NOT NULL target without a source": Bad(
        "'x' is a NOT NULL target without a source",
        "name: j\ntable: t\nalter: [ADD x int NOT NULL]\n",
        "3:9",
    ),
    "a throttle that is not SQL": Bad(
        'syntax error at or near "SELEC"', BIGINT + "throttle: {query: SELEC 1}\n", "4:12"
    ),
    "a throttle of two values": Bad(
        "one value, not 2", BIGINT + 'throttle: {query: "SELECT 1, 2"}\n', "4:12"
    ),
    "a throttle that writes": Bad(
        "throttle.query fails", BIGINT + "throttle: {query: DELETE FROM t RETURNING true}\n", "4:12"
    ),
}

TABLES = {
    "no key": Bad("no usable primary key", setup="CREATE TABLE t (id integer, note text)"),
    "a deferrable key": Bad(
        "is deferrable", setup="CREATE TABLE t (id integer PRIMARY KEY DEFERRABLE)"
    ),
    "an unlogged table": Bad(
        "an unlogged table", setup="CREATE UNLOGGED TABLE t (id integer PRIMARY KEY)"
    ),
    "a foreign table": Bad(
        "a foreign table",
        setup="CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE FOREIGN TABLE t (id integer NOT NULL) SERVER s",
    ),
    "a table that is not a heap": Bad(
        "the access method other",
        setup="CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;"
        "CREATE TABLE t (id integer PRIMARY KEY) USING other",
    ),
    "a view": Bad("public.t is a view", setup="CREATE VIEW t AS SELECT 1 AS id"),
    "a schema named like ours": Bad("it is not ours", setup=TABLE + "CREATE SCHEMA restructure"),
    "a publication of everything": Bad(
        "publication wide is FOR ALL TABLES", setup=TABLE + "CREATE PUBLICATION wide FOR ALL TABLES"
    ),
}


@contextmanager
def unchanged(dsn: str) -> Iterator[None]:
    """Whatever the command inside does, it leaves the database as it was."""

    def state() -> object:
        with psycopg.connect(dsn) as session:
            return session.execute(_STATE).fetchall()

    before, ours = state(), leftovers(dsn)
    yield
    assert leftovers(dsn) == ours
    assert state() == before


def refused(plan: Path, dsn: str, *words: str, command: str = "run", code: int = 3) -> str:
    """Run ``command``; what it said, once the exit code, the words and the secrets are checked."""
    done = restructure(command, plan, dsn=dsn)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    for word in words:
        assert any(choice in said for choice in word.split("|")), said
    assert "Traceback" not in said
    assert "defect" not in said
    assert SECRET not in said
    assert "private-" not in said
    return said


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(BIGINT)
    return file


@pytest.mark.parametrize("bad", PLANS.values(), ids=PLANS)
def test_what_the_server_does_not_accept_is_shown_at_its_place(
    connection: psycopg.Connection, database: str, plan: Path, bad: Bad
) -> None:
    plan.write_text(bad.plan)
    if bad.setup:
        connection.execute(bad.setup)
    with unchanged(database):
        said = refused(plan, database, bad.words, code=2)
        assert f"error: {plan}:{bad.place}" in said


@pytest.mark.pg_at_least(18)  # no server's version matters
@pytest.mark.parametrize("bad", FILES.values(), ids=FILES)
def test_a_file_that_is_no_plan_is_shown_its_place(database: str, plan: Path, bad: Bad) -> None:
    plan.write_text(bad.plan)
    said = refused(plan, database, bad.words, code=2)
    assert f"error: {plan}:{bad.place}" in said
    assert leftovers(database) == []


@pytest.mark.parametrize("bad", TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_followed_is_refused_with_a_remedy(
    connection: psycopg.Connection, database: str, plan: Path, bad: Bad
) -> None:
    connection.execute(bad.setup)
    with unchanged(database):
        refused(plan, database, bad.words, "→")


def test_a_temporary_table_is_refused(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    connection.execute("CREATE TEMPORARY TABLE t (id integer PRIMARY KEY)")
    row = connection.execute("SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 't'")
    plan.write_text(BIGINT.replace("table: t", f"table: {row.fetchall()[0][0]}.t"))
    with unchanged(database):
        refused(plan, database, "a temporary table", "→")


def test_both_forms_of_output_say_the_same(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    """A finding in the document of ``check``; an error with its findings or place elsewhere."""
    connection.execute("CREATE UNLOGGED TABLE t (id integer PRIMARY KEY)")
    with unchanged(database):
        checked = restructure("check", plan, "--output", "json", dsn=database)
        ran = restructure("run", plan, "--output", "json", dsn=database)
        assert (checked.returncode, ran.returncode) == (3, 3)
        assert document(checked)["findings"] == document(ran)["error"]["findings"]
        plan.write_text(BIGINT.replace("table: t", "table: u"))
        error = document(restructure("check", plan, "--output", "json", dsn=database))["error"]
        assert (error["exit_code"], error["kind"]) == (2, "PlanError")
        assert error["place"] == {"file": str(plan), "line": 2, "column": 1}


@pytest.mark.parametrize(
    ("options", "rights", "words"),
    [
        ("", "ALTER TABLE t OWNER TO {role}", "may not use replication slots"),
        ("REPLICATION", "SELECT 1", "belongs to postgres"),
        (
            "REPLICATION",
            "ALTER TABLE t OWNER TO {role}; ALTER TABLE t FORCE ROW LEVEL SECURITY;"
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "hides rows from",
        ),
    ],
    ids=["without REPLICATION", "without ownership", "under FORCE ROW LEVEL SECURITY"],
)
def test_a_role_that_may_not_is_refused(
    connection: psycopg.Connection,
    database: str,
    plan: Path,
    options: str,
    rights: str,
    words: str,
) -> None:
    connection.execute(TABLE)
    name, dsn = role(connection, database, options)
    connection.execute(
        sql.SQL(
            "GRANT CREATE ON DATABASE {database} TO {role}; GRANT CREATE ON SCHEMA public TO {role};"
            + rights
        ).format(role=sql.Identifier(name), database=sql.Identifier(connection.info.dbname))
    )
    with unchanged(database):
        refused(plan, dsn, words, "→")


def test_a_pooler_in_between_is_refused(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    connection.execute(TABLE)
    pooler = FakePooler(database)
    try:
        with unchanged(database):
            refused(plan, pooler.dsn, "a pooler", "→")
    finally:
        pooler.close()


def only_sender(dsn: str) -> psycopg.Connection:
    """A connection that has to wait until the server has let go of an earlier one."""
    made: list[psycopg.Connection] = []

    def connected() -> bool:
        with suppress(psycopg.OperationalError):
            made.append(psycopg.connect(dsn))
        return bool(made)

    eventually(connected, "the only WAL sender is free")
    return made[0]


def test_a_server_that_lacks_what_a_stream_needs_is_refused(
    fresh_server: FreshServer, plan: Path
) -> None:
    """One server, restarted with each lack."""
    server = fresh_server(max_replication_slots="1", max_wal_senders="1")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute(TABLE)
        session.execute("SELECT pg_create_physical_replication_slot('theirs')")
        refused(plan, server.dsn, "all 1 replication slots are in use: theirs")
        session.execute("SELECT pg_drop_replication_slot('theirs')")
    with unchanged(server.dsn):
        with only_sender(server.dsn + " replication=database application_name=greedy"):
            refused(plan, server.dsn, "all 1 WAL senders are in use: greedy")
        server.restart(settings={"synchronous_standby_names": "*"})
        refused(plan, server.dsn, "would make our stream a synchronous standby")
        server.restart(settings={"synchronous_standby_names": "", "wal_level": "replica"})
        refused(plan, server.dsn, "wal_level is replica")
    server.settings["wal_level"] = "logical"
    signal = server.data / "standby.signal"
    signal.touch()
    signal.chmod(0o666)
    server.restart()
    refused(plan, server.dsn, "this server is a standby")
    assert leftovers(server.dsn) == []


def test_a_job_name_that_is_used_and_a_table_that_has_a_job(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    connection.execute(TABLE)
    connection.execute("CREATE TABLE u (id integer PRIMARY KEY)")
    assert restructure("run", plan, dsn=database).returncode == 0
    with unchanged(database):
        _, stranger = role(connection, database)
        refused(plan, stranger, "the jobs of this database belong to postgres", code=2)
        for command in ("check", "run"):
            plan.write_text(BIGINT.replace("table: t", "table: u"))
            said = refused(plan, database, "another plan, for public.t", command=command, code=2)
            assert f"error: {plan}:1:1: job j" in said
            plan.write_text(BIGINT.replace("name: j", "name: k"))
            said = refused(plan, database, "is being restructured by job j", command=command)
            assert "Take the table out" not in said
        plan.write_text(BIGINT)
        for _ in range(2):
            refused(plan, database, "under way already, in phase ready", command="check", code=0)
    assert restructure("abort", "j", "--yes", dsn=database).returncode == 0
    assert leftovers(database) == []


@pytest.mark.parametrize("prepared", [True, False], ids=["a prepared one", "an open one"])
def test_a_transaction_in_the_way_of_the_slot_is_named_after_a_timeout(
    fresh_server: FreshServer, plan: Path, prepared: bool
) -> None:
    """On a server of its own: a slot waits for the transactions of every database."""
    server = fresh_server()
    plan.write_text(BIGINT + "stream: {kind: pgoutput, slot_timeout: 1s}\n")
    with (
        psycopg.connect(server.dsn, autocommit=True) as session,
        psycopg.connect(server.dsn, application_name="forgetful") as other,
    ):
        session.execute(TABLE)
        other.execute("CREATE TABLE other ()")
        if prepared:
            other.execute("PREPARE TRANSACTION 'forgotten'")
        who = "prepared transaction 'forgotten'" if prepared else f"pid {other.info.backend_pid} "
        refused(plan, server.dsn, f"was not ready within 1 s; it waits for {who}", code=5)
        assert leftovers(server.dsn) == []
        plan.write_text(plan.read_text().replace("1s", "1h"))
        with Running("run", plan, "-v", dsn=server.dsn) as tool:
            tool.said("making the slot waits for")
            tool.interrupt()
            assert tool.finish() == 130
        assert not [name for name in leftovers(server.dsn) if name.startswith("slot")]
        assert restructure("abort", "j", "--yes", dsn=server.dsn).returncode == 0
        assert leftovers(server.dsn) == []


def test_a_default_that_create_forgets_is_a_warning(
    connection: psycopg.Connection, database: str, plan: Path
) -> None:
    connection.execute(
        "CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text DEFAULT 'x',"
        " n integer DEFAULT 1)"
    )
    plan.write_text(CREATE.format("note text, n integer DEFAULT 2"))
    with unchanged(database):
        said = refused(plan, database, "id of public.t is an identity", command="check", code=0)
    assert "note of public.t has DEFAULT 'x'" in said
    assert "n of public.t has" not in said


@pytest.mark.pg_at_least(18)  # tests/pipeline has every phase and version
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("ALTER TABLE t ADD COLUMN x integer", "x"),
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "key"),
        ("SELECT pg_replication_slot_advance('restructure_j', pg_current_wal_lsn())", "moved"),
        ("SELECT pg_drop_replication_slot('restructure_j')", "gone"),
    ],
    ids=["a column added", "the key dropped", "the slot moved", "the slot dropped"],
)
def test_harm_done_to_a_job_that_nobody_attends_needs_an_operator(
    connection: psycopg.Connection, database: str, plan: Path, harm: str, words: str
) -> None:
    connection.execute(TABLE)
    assert restructure("run", plan, dsn=database).returncode == 0
    connection.execute("INSERT INTO t VALUES (1000)")
    wait_until_released(connection)
    connection.execute(harm.encode())
    said = refused(plan, database, words, code=6)
    assert "hint: " in said
    assert restructure("abort", "j", "--yes", dsn=database).returncode == 0
    assert leftovers(database) == []


@pytest.mark.parametrize("command", ["status", "pause", "resume", "cutover", "abort", "finalize"])
@pytest.mark.pg_at_least(18)  # once is enough
def test_a_job_that_nobody_knows_is_exit_2(database: str, command: str) -> None:
    yes = ["--yes"] if command in ("abort", "finalize") else []
    done = restructure(command, "nobody", *yes, dsn=database)
    assert done.returncode == 2
    assert "no job named 'nobody'" in done.stderr
    assert leftovers(database) == []


@pytest.mark.pg_at_least(18)  # once is enough
def test_a_way_to_the_server_that_is_wrong_is_exit_2_without_the_password(
    server: Server, database: str
) -> None:
    for dsn in (
        make_conninfo(database, password=SECRET),
        make_conninfo(database, dbname="nowhere", password=SECRET),
    ):
        done = restructure("status", dsn=dsn)
        assert done.returncode == 2
        assert "cannot connect" in done.stderr
        assert SECRET not in done.stdout + done.stderr
    for words in (["status", "--dsn", ""], ["status", "--dsn="], ["status", "--dsn"]):
        done = restructure(*words, dsn=database)
        assert done.returncode == 2
        assert "--dsn" in done.stderr
