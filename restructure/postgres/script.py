"""Run statements while keeping the list of what was run, so that ``plan`` shows what ``run`` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from restructure.postgres.connect import Connection

Statement = LiteralString | sql.Composable


def raw(text: str) -> sql.SQL:
    """SQL that PostgreSQL printed itself or that the plan holds, to be put into a statement as it is.

    A percent sign is doubled, because psycopg reads a single one as a placeholder in every
    statement that is executed with parameters: execute it with some, if only ``{}``.
    """
    return sql.SQL(text.replace("%", "%%"))


def quoted(*parts: str) -> sql.SQL:
    """As sql.Identifier, which leaves a percent sign in a name to be taken for a placeholder."""
    return raw(".".join('"' + part.replace('"', '""') + '"' for part in parts))


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, the strongest lock it takes and on what, and why it is run."""

    text: str
    lock: str
    why: str

    @classmethod
    def of(cls, connection: Connection, statement: sql.Composable, *, lock: str, why: str) -> Step:
        """A step that is only composed now and run later."""
        return cls(statement.as_string(connection), lock, why)


class Script:
    """A transaction's statements, run in order and remembered."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.steps: list[Step] = []

    def run(self, statement: Statement, *, lock: str, why: str) -> None:
        """Run one statement. ``lock`` reads like "ACCESS SHARE on public.orders".

        ``prepare=True`` makes it travel by the extended protocol, in which the server
        itself refuses a second statement behind a semicolon.
        """
        composed = sql.SQL("{}").format(
            sql.SQL(statement) if isinstance(statement, str) else statement
        )
        self.steps.append(Step(composed.as_string(self.connection), lock, why))
        self.connection.execute(composed, prepare=True)
