"""Let PostgreSQL print types, expressions and definitions so that they mean the same anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from restructure.postgres.connect import Connection

_SETTINGS = {
    "search_path": "pg_catalog",  # everything else is printed with its schema
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "quote_all_identifiers": "off",
}
_READ = sql.SQL("SELECT ") + sql.SQL(", ").join(
    sql.SQL("current_setting({})").format(sql.Literal(name)) for name in _SETTINGS
)


@contextmanager
def canonical(connection: Connection) -> Iterator[None]:
    """Within, the session prints names with their schema and constants in one fixed form.

    Opens a transaction or a savepoint, and puts the session's own settings back.
    """
    with connection.transaction():
        before = connection.execute(_READ).fetchone()
        assert before is not None
        _set(connection, list(_SETTINGS.values()))
        yield
        _set(connection, list(before))


@contextmanager
def search_path_first(connection: Connection, schema: str) -> Iterator[None]:
    """Within, names without a schema are looked up in (and made in) ``schema`` first."""
    with connection.transaction():
        row = connection.execute("SELECT current_setting('search_path')").fetchone()
        assert row is not None
        first = sql.Identifier(schema).as_string(connection)
        joined = f"{first}, {row[0]}" if row[0].strip() else first
        connection.execute("SELECT set_config('search_path', %s, true)", [joined])
        yield
        connection.execute("SELECT set_config('search_path', %s, true)", [row[0]])


@contextmanager
def looking_in(connection: Connection, *schemas: str) -> Iterator[None]:
    """Within, names without a schema are looked up in ``schemas`` only, in this order.

    What PostgreSQL prints leaves out the schema of whatever would be found so. Temporary objects
    come last, though by default they come first.
    """
    path = [sql.Identifier(schema).as_string(connection) for schema in (*schemas, "pg_temp")]
    with connection.transaction():
        row = connection.execute("SELECT current_setting('search_path')").fetchone()
        assert row is not None
        connection.execute("SELECT set_config('search_path', %s, true)", [", ".join(path)])
        yield
        connection.execute("SELECT set_config('search_path', %s, true)", [row[0]])


def printed(text: str) -> sql.SQL:
    """SQL that PostgreSQL printed or the plan holds, for a statement run *without* parameters."""
    return sql.SQL(text)


def _set(connection: Connection, values: list[str]) -> None:
    calls = [
        sql.SQL("set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in zip(_SETTINGS, values, strict=True)
    ]
    connection.execute(sql.SQL("SELECT ") + sql.SQL(", ").join(calls))
