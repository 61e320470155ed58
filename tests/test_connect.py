"""Sessions of ours: what a database or a role has set must not reach them."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from restructure.postgres.connect import connect


@pytest.mark.parametrize(
    ("setting", "theirs", "ours"),
    [
        ("jit", "on", "off"),
        ("row_security", "on", "off"),
        ("lock_timeout", "7s", "0"),
        ("synchronous_commit", "remote_apply", "local"),
    ],
)
def test_what_the_database_sets_does_not_reach_our_sessions(
    database: str, connection: psycopg.Connection, setting: str, theirs: str, ours: str
) -> None:
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(connection.info.dbname), sql.Identifier(setting), sql.Literal(theirs)
        )
    )
    shown = sql.SQL("SELECT current_setting({})").format(sql.Literal(setting))
    with psycopg.connect(database) as client:
        assert client.execute(shown).fetchone() == (theirs,)
    with connect(database) as session:
        assert session.execute(shown).fetchone() == (ours,)
