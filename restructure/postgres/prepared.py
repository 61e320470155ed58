"""Statements prepared by name, in SQL: psycopg drops those it prepares itself after any ALTER or DROP."""

from __future__ import annotations

from psycopg import sql

from restructure.postgres.connect import Connection


def prepare(session: Connection, name: str, statement: sql.Composable) -> None:
    """Prepare ``statement``, which takes no parameters, and have it planned, for :func:`execute`."""
    prepare_text(session, name, statement.as_string(session).replace("%%", "%"))


def prepare_text(session: Connection, name: str, text: str) -> None:
    """The same for a finished text, in which a percent sign stands for itself."""
    prepared = sql.Identifier(name)
    session.execute(sql.SQL("PREPARE {} AS {}").format(prepared, sql.SQL(text)))
    session.execute(sql.SQL("EXPLAIN EXECUTE {}").format(prepared))


def execute(name: str) -> sql.Composed:
    """The statement that runs what was prepared as ``name``."""
    return sql.SQL("EXECUTE {}").format(sql.Identifier(name))
