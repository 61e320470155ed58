"""Which rows of the new table would be equal where it demands that they differ: asked of all rows at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from restructure.engine.control import Control
from restructure.engine.refusal import is_row_error
from restructure.engine.trial.new_row import NewRow
from restructure.engine.trial.rule import NotLookedAt, Unique
from restructure.engine.trial.scan import read_only
from restructure.engine.trial.tally import SHOWN, Tally
from restructure.postgres.connect import Connection
from restructure.shape.deparse import printed


class Uniques:
    """One long statement for each unique index that is new: its snapshot holds back vacuum meanwhile."""

    def __init__(self, row: NewRow, tally: Tally, *, dsn: str, job: str, control: Control) -> None:
        self._row = row
        self._tally = tally
        self._dsn = dsn
        self._job = job
        self._control = control
        self.not_looked_at: list[NotLookedAt] = []
        self.under_way: str | None = None

    def look(self, uniques: list[Unique]) -> None:
        """Look at one index after the other. Raises as the scan does."""
        if uniques:  # by run_all, so that a stop is told from a failure as in the scan
            self._control.crew.run_all([partial(self._look, uniques)])

    def _look(self, uniques: list[Unique]) -> None:
        with read_only(self._dsn, self._job, "check unique") as session:
            for unique in uniques:
                self.under_way = unique.name
                try:
                    self._find(session, unique)
                except psycopg.ProgrammingError as error:
                    said = error.diag.message_primary or type(error).__name__
                    self.not_looked_at.append(NotLookedAt("unique", unique.name, said))
                except psycopg.Error as error:
                    if not is_row_error(error):
                        raise
                    why = "values that it needs cannot be made for some rows"
                    self.not_looked_at.append(NotLookedAt("unique", unique.name, why))
        self.under_way = None

    def _find(self, session: Connection, unique: Unique) -> None:
        parts = [
            sql.Identifier(f"restructure part {number}") for number in range(len(unique.parts))
        ]
        counted = sql.SQL(
            "SELECT coalesce(sum(n), 0)::bigint"
            " FROM (SELECT count(*) AS n FROM {} GROUP BY {} HAVING count(*) > 1) AS doubled"
        ).format(self._entries(unique, parts, keys=False), sql.SQL(", ").join(parts))
        rows = int(self._one(session, counted))
        if not rows:
            return
        shown = sql.SQL(
            "SELECT array_agg(key) FROM (SELECT key FROM (SELECT key, count(*) OVER (PARTITION BY {}) AS n"
            " FROM {}) AS counted WHERE n > 1 LIMIT {}) AS first"
        ).format(
            sql.SQL(", ").join(parts),
            self._entries(unique, parts, keys=True),
            sql.Literal(SHOWN),
        )
        keys = [tuple(key) for key in self._one(session, shown) or []]
        self._tally.refuse("unique", unique.name, rows, keys, (0, 0))

    def _entries(self, unique: Unique, parts: list[sql.Identifier], *, keys: bool) -> sql.Composed:
        """The index's entries, those that nothing is equal to left out."""
        made: list[sql.Composable] = [
            sql.SQL("{} AS {}").format(printed(part), name)
            for part, name in zip(unique.parts, parts, strict=True)
        ]
        if keys:
            made.append(sql.SQL("{} AS key").format(self._row.key))
        condition = unique.condition or sql.SQL("true")
        entries = sql.SQL("(SELECT {} FROM {} WHERE {} AND {})").format(
            sql.SQL(", ").join(made), self._row.all(), self._row.sound(unique.columns), condition
        )
        known = (
            sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(name) for name in parts)
            if unique.nulls_distinct
            else sql.SQL("true")
        )
        return sql.SQL("(SELECT * FROM {} AS entries WHERE {}) AS entries").format(entries, known)

    def _one(self, session: Connection, statement: sql.Composed) -> Any:
        found: list[Any] = []

        def run() -> None:
            row = session.execute(statement, prepare=False).fetchone()
            found[:] = [row[0] if row else None]

        self._control.long_statement(session, run)
        return found[0]
