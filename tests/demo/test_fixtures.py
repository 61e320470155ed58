"""The fixtures keep their promises to the tests that use them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from restructure.demo.server import Server
from tests.fix_proxy import Proxy
from tests.fix_server import FreshServer, fresh_database


def test_a_database_is_fresh_and_can_decode_its_changes(
    connection: psycopg.Connection, pg_version: int
) -> None:
    settings = connection.execute(
        "SELECT current_setting('wal_level'), current_setting('server_encoding'),"
        " current_setting('server_version_num')::int / 10000"
    ).fetchone()
    tables = connection.execute(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    ).fetchone()

    assert settings == ("logical", "UTF8", pg_version)
    assert tables == (0,)


def test_a_database_goes_with_its_slots_prepared_transactions_subscriptions_and_roles(
    server: Server,
) -> None:
    with fresh_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as session:
        session.execute("CREATE ROLE left_behind")
        session.execute("CREATE TABLE t ()")
        session.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
        session.execute(
            "CREATE SUBSCRIPTION left_behind CONNECTION 'host=nowhere' PUBLICATION p"
            " WITH (connect = false)"
        )
        session.execute("BEGIN")
        session.execute("DROP TABLE t")
        session.execute("PREPARE TRANSACTION 'left behind'")

    with psycopg.connect(server.dsn, autocommit=True) as admin:
        left = admin.execute(
            "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'left_behind'),"
            " (SELECT count(*) FROM pg_prepared_xacts),"
            " (SELECT count(*) FROM pg_subscription),"
            " (SELECT count(*) FROM pg_roles WHERE rolname = 'left_behind'),"
            " (SELECT count(*) FROM pg_database WHERE datname LIKE 't\\_%' AND"
            "  NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datname = pg_database.datname))"
        ).fetchone()

    assert left == (0, 0, 0, 0, 0)


def test_a_fresh_server_has_the_settings_it_was_asked_for(fresh_server: FreshServer) -> None:
    own = fresh_server(wal_level="replica", log_line_prefix="it's \\ ")

    with psycopg.connect(own.dsn) as session:
        shown = session.execute(
            "SELECT current_setting('wal_level'), current_setting('log_line_prefix')"
        ).fetchone()

    assert shown == ("replica", "it's \\ ")


@pytest.mark.pg_at_least(18)
def test_the_marker_pg_at_least_keeps_older_servers_away(pg_version: int) -> None:
    assert pg_version >= 18


def test_a_proxy_passes_cuts_and_takes_connections_again(proxy: Proxy) -> None:
    with psycopg.connect(proxy.dsn, autocommit=True) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")

    with psycopg.connect(proxy.dsn) as session:
        assert session.execute("SELECT 2").fetchone() == (2,)


def test_a_refusing_proxy_lets_nobody_in_until_it_is_healed(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(proxy.dsn)

    proxy.heal()
    psycopg.connect(proxy.dsn).close()


def test_a_deaf_proxy_holds_what_is_sent_until_it_is_healed(
    proxy: Proxy, connection: psycopg.Connection
) -> None:
    connection.execute("CREATE TABLE heard (n int)")
    with psycopg.connect(proxy.dsn, autocommit=True) as session, ThreadPoolExecutor() as pool:
        proxy.deafen()
        answer = pool.submit(session.execute, "INSERT INTO heard VALUES (1)")
        proxy.wait_until_holding()
        before = connection.execute("SELECT n FROM heard").fetchall()
        proxy.heal()
        answer.result()
        after = connection.execute("SELECT n FROM heard").fetchall()

    assert before == []
    assert after == [(1,)]
