"""Statements prepared by name, in SQL: psycopg drops those it prepares itself after any ALTER or DROP."""

from __future__ import annotations

from psycopg import sql

from restructure.postgres.connect import Connection


def prepare(session: Connection, name: str, statement: sql.Composable) -> None:
    """Prepare ``statement``, which takes no parameters, and have it planned, for :func:`execute`."""
    prepared = sql.Identifier(name)
    text = statement.as_string(session).replace("%%", "%")
    session.execute(sql.SQL("PREPARE {} AS {}").format(prepared, sql.SQL(text)))
    session.execute(sql.SQL("EXPLAIN EXECUTE {}").format(prepared))


def execute(name: str) -> sql.Composed:
    """The statement that runs what was prepared as ``name``."""
    return sql.SQL("EXECUTE {}").format(sql.Identifier(name))
