"""A small table and a plan for it, and one whose copy stands still as long as the test likes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

ROWS = 500


@pytest.fixture
def items(connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit session on a database with a table ``items`` of 500 rows."""
    connection.execute("CREATE TABLE items (id integer PRIMARY KEY, note text)")
    connection.execute(
        "INSERT INTO items SELECT n, 'note ' || n FROM generate_series(1, %s) n", (ROWS,)
    )
    connection.execute("ANALYZE items")
    return connection


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan that widens the key of ``items``."""
    file = tmp_path / "items.yaml"
    file.write_text("name: items\ntable: public.items\nalter: [ALTER COLUMN id TYPE bigint]\n")
    return file


class Gate:
    """``with gate.closed():`` the copy of ``gate.plan`` stands still in its first statement."""

    def __init__(self, dsn: str, plan: Path) -> None:
        self.dsn = dsn
        self.plan = plan

    @contextmanager
    def closed(self) -> Iterator[None]:
        with psycopg.connect(self.dsn, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(4711)")
            yield


@pytest.fixture
def gate(items: psycopg.Connection, database: str, tmp_path: Path) -> Gate:
    """An expression that waits: PostgreSQL takes our word that the function is immutable."""
    items.execute(
        "CREATE FUNCTION held(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        " PERFORM pg_advisory_lock_shared(4711); PERFORM pg_advisory_unlock_shared(4711);"
        " RETURN $1; END $$"
    )
    plan = tmp_path / "gated.yaml"
    plan.write_text(
        "name: items\ntable: public.items\nalter: [ALTER COLUMN id TYPE bigint]\n"
        "columns:\n  note: held(note)\n"
    )
    return Gate(database, plan)
