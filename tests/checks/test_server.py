"""Each thing that a server or a role lacks is refused with its remedy; a fit one is not."""

from __future__ import annotations

import psycopg
import pytest

from restructure.checks.context import CheckContext
from restructure.checks.registry import SERVER_CHECKS, run_checks
from restructure.checks.server import old_transactions
from restructure.checks.server.synchronous_names import standby_names
from restructure.checks.server.version import judge
from restructure.demo.server import Server
from restructure.postgres.connect import connect
from restructure.postgres.server import provider
from tests.checks.build import role, server_findings
from tests.checks.fake_pooler import FakePooler
from tests.fix_server import FreshServer


def test_a_fit_server_is_not_refused(database: str) -> None:
    with connect(database, role="check") as session:
        found = run_checks(CheckContext(session, database))

    assert [finding for finding in found if finding.refuses] == []


@pytest.mark.parametrize(
    ("version", "refused", "words"),
    [
        (140011, [True], "oldest that works is 15"),
        (150007, [False, False], "upgrade"),
        (150012, [False], "publication is altered"),
        (150013, [], ""),
        (160003, [False, False], "16.3 has a known fault"),
        (170004, [False], "17.4"),
        (180000, [], ""),
        (190000, [False], "tested up to 18"),
    ],
)
def test_versions_that_are_too_old_or_known_faulty(
    version: int, refused: list[bool], words: str
) -> None:
    found = list(judge(version))

    assert [finding.refuses for finding in found] == refused
    said = " ".join(finding.message + finding.hint for finding in found)
    assert words.lower() in said.lower()


def test_a_server_without_logical_wal_is_refused(fresh_server: FreshServer) -> None:
    server = fresh_server(wal_level="replica")
    (found,) = server_findings(server.dsn, "wal_level")

    assert found.refuses
    assert "wal_level is replica" in found.message
    assert "ALTER SYSTEM" in found.hint


def test_a_server_without_a_free_slot_is_refused_and_one_left_is_a_warning(
    fresh_server: FreshServer,
) -> None:
    server = fresh_server(max_replication_slots="2")
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute("SELECT pg_create_physical_replication_slot('one')")
        (warning,) = server_findings(server.dsn, "free_slots")
        session.execute("SELECT pg_create_physical_replication_slot('two')")
        (refusal,) = server_findings(server.dsn, "free_slots")

    assert not warning.refuses
    assert refusal.refuses
    assert "one (unused), two (unused)" in refusal.message


def test_a_server_without_a_free_sender_is_refused_once(fresh_server: FreshServer) -> None:
    server = fresh_server(max_wal_senders="1")
    with psycopg.connect(server.dsn + " replication=database application_name=greedy"):
        (found,) = server_findings(server.dsn, "free_senders")
        silent = server_findings(server.dsn, "replication")

    assert found.refuses
    assert "greedy" in found.message
    assert silent == []


def test_the_second_sender_of_the_way_back_is_missed_in_time(fresh_server: FreshServer) -> None:
    (found,) = server_findings(fresh_server(max_wal_senders="1").dsn, "free_senders")

    assert not found.refuses
    assert "revert_window: 0" in found.hint


@pytest.mark.parametrize(
    ("sign", "name", "remedy"),
    [
        ("SELECT 1", "PostgreSQL", "ALTER ROLE {role} REPLICATION"),
        ("CREATE ROLE rds_superuser; CREATE ROLE rds_replication", "Amazon RDS", "GRANT rds_repl"),
        (
            "CREATE ROLE rds_superuser; CREATE FUNCTION aurora_version() RETURNS text"
            " LANGUAGE sql AS 'SELECT null'",
            "Amazon Aurora",
            "GRANT rds_replication TO {role}",
        ),
        ("CREATE ROLE cloudsqlsuperuser", "Google Cloud SQL", "ALTER USER {role}"),
        ("CREATE ROLE azure_pg_admin", "Azure Database for PostgreSQL", "ALTER ROLE {role}"),
        ("CREATE ROLE neon_superuser", "Neon", "console"),
        ("CREATE ROLE supabase_admin", "Supabase", "direct connection"),
        ("CREATE SCHEMA heroku_ext", "Heroku Postgres", "no logical replication slots"),
    ],
)
def test_a_role_that_may_not_replicate_is_told_what_its_provider_wants(
    database: str, connection: psycopg.Connection, sign: str, name: str, remedy: str
) -> None:
    connection.execute(sign)
    who, dsn = role(connection, database)
    (found,) = server_findings(dsn, "replication")

    assert provider(connection).name == name
    assert found.refuses
    assert who in found.message
    assert remedy.format(role=who) in found.hint


def test_a_role_with_replication_passes(database: str, connection: psycopg.Connection) -> None:
    _, dsn = role(connection, database, "REPLICATION")

    assert server_findings(dsn, "replication") == []


def test_a_standby_is_refused(fresh_server: FreshServer) -> None:
    server = fresh_server()
    signal = server.data / "standby.signal"
    signal.touch()
    signal.chmod(0o666)
    server.restart()
    (found,) = server_findings(server.dsn, "standby")

    assert found.refuses
    assert "target_session_attrs" in found.hint


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", []),
        ("*", ["*"]),
        ("a, b", ["a", "b"]),
        ("2 (a, *)", ["a", "*"]),
        ("FIRST 1 (a, b)", ["a", "b"]),
        ("any 1 (*)", ["*"]),
        ('"restructure x (main)", b', ["restructure x (main)", "b"]),
        ('ANY 1("a ""b""",c)', ['a "b"', "c"]),
        ("first, any", ["first", "any"]),
    ],
)
def test_every_form_of_the_synchronous_names_is_understood(setting: str, names: list[str]) -> None:
    assert standby_names(setting) == names


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("*", True),
        ("ANY 1 (a, *)", True),
        ('FIRST 1 ("Restructure job stream")', True),
        ("ANY 1 (a, b)", False),
        ("", False),
    ],
)
def test_synchronous_names_that_match_us_are_refused(
    server: Server, setting: str, refused: bool
) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute("SET synchronous_commit = local")
        try:
            admin.execute(
                psycopg.sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}").format(setting)
            )
            admin.execute("SELECT pg_reload_conf()")
            _until(server, "synchronous_standby_names", setting)
            found = server_findings(server.dsn, "synchronous_names")
        finally:
            admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
            admin.execute("SELECT pg_reload_conf()")
            _until(server, "synchronous_standby_names", "")

    assert [finding.refuses for finding in found] == ([True] if refused else [])


def _until(server: Server, name: str, value: str) -> None:
    """Wait until new sessions see ``value``."""
    for _ in range(1000):
        with psycopg.connect(server.dsn, autocommit=True) as session:
            row = session.execute("SELECT current_setting(%s)", [name]).fetchone()
            if row == (value,):
                return
    raise AssertionError(f"{name} did not become {value!r}")


def test_a_role_that_may_not_create_in_the_database_is_refused(
    database: str, connection: psycopg.Connection
) -> None:
    name, dsn = role(connection, database)
    (found,) = server_findings(dsn, "database_create")
    assert found.refuses
    assert name in found.hint

    connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO {name}")
    assert server_findings(dsn, "database_create") == []


def test_a_small_limit_on_kept_wal_is_a_warning(fresh_server: FreshServer) -> None:
    server = fresh_server(max_slot_wal_keep_size="64MB")
    (found,) = server_findings(server.dsn, "wal_kept")

    assert not found.refuses
    assert "64 MB" in found.message


@pytest.mark.pg_at_least(18)
def test_a_timeout_of_idle_slots_is_a_warning(fresh_server: FreshServer) -> None:
    server = fresh_server(idle_replication_slot_timeout="1h")
    (found,) = server_findings(server.dsn, "idle_slots")

    assert not found.refuses
    assert "1h" in found.message


def test_an_old_transaction_is_named_by_pid_user_and_age(
    database: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_transactions, "OLD", 0)
    with psycopg.connect(database, application_name="forgetful") as idle:
        idle.execute("SELECT pg_current_xact_id()")
        (found,) = [
            finding
            for finding in server_findings(database, "old_transactions")
            if "forgetful" in finding.message
        ]

        assert not found.refuses
        assert f"pid {idle.info.backend_pid} (postgres" in found.message
        assert "idle in transaction" in found.message


def test_a_prepared_transaction_of_any_database_is_named(
    server: Server, connection: psycopg.Connection
) -> None:
    gid = f"left in {connection.info.dbname}"
    with connection.transaction():
        connection.execute("CREATE TABLE t ()")
        connection.execute(f"PREPARE TRANSACTION '{gid}'")
    (found,) = server_findings(server.dsn, "prepared_transactions")

    assert not found.refuses
    assert gid in found.message
    assert connection.info.dbname in found.message


def test_too_few_connections_are_refused(database: str, connection: psycopg.Connection) -> None:
    _, dsn = role(connection, database, "CONNECTION LIMIT 5")
    (found,) = server_findings(dsn, "connections")

    assert found.refuses
    assert "only 4 more connections" in found.message


def test_an_enabled_event_trigger_is_a_warning(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION e();"
    )
    (found,) = server_findings(database, "event_triggers")
    assert not found.refuses
    assert "watch" in found.message

    connection.execute("ALTER EVENT TRIGGER watch DISABLE")
    assert server_findings(database, "event_triggers") == []


def test_an_enabled_subscription_is_a_warning(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(
        "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)"
    )
    assert server_findings(database, "subscriptions") == []
    connection.execute("SET allow_system_table_mods = on")
    connection.execute("UPDATE pg_subscription SET subenabled = true WHERE subname = 'feed'")
    (found,) = server_findings(database, "subscriptions")
    connection.execute("UPDATE pg_subscription SET subenabled = false WHERE subname = 'feed'")

    assert not found.refuses
    assert "feed" in found.message


def test_a_role_that_sees_nobody_is_warned(database: str, connection: psycopg.Connection) -> None:
    name, dsn = role(connection, database)
    (found,) = server_findings(dsn, "activity")
    assert not found.refuses

    connection.execute(f"GRANT pg_monitor TO {name}")
    assert server_findings(dsn, "activity") == []


@pytest.mark.parametrize("sessions", [1, 2, 5])
def test_a_pooler_that_lends_sessions_by_transaction_is_refused(
    database: str, sessions: int
) -> None:
    pooler = FakePooler(database, sessions=sessions)
    try:
        (found,) = server_findings(pooler.dsn, "pooler")
    finally:
        pooler.close()

    assert found.refuses
    assert "changing server processes" in found.message


def test_a_proxy_that_keeps_sessions_apart_is_only_a_warning(database: str) -> None:
    pooler = FakePooler(database, sessions=4, by_transaction=False)
    try:
        (found,) = server_findings(pooler.dsn, "pooler")
    finally:
        pooler.close()

    assert not found.refuses


def test_a_pooler_that_refuses_replication_connections_is_refused(database: str) -> None:
    pooler = FakePooler(database)
    try:
        (found,) = server_findings(pooler.dsn, "replication")
    finally:
        pooler.close()

    assert found.refuses
    assert "pooler" in found.hint


def test_a_direct_connection_is_no_pooler(database: str) -> None:
    assert server_findings(database, "pooler") == []


def test_every_check_has_a_name_of_its_own_and_runs_in_its_order() -> None:
    assert list(SERVER_CHECKS) == sorted(SERVER_CHECKS)
