"""Which ranges are no longer as they were when they were compared: those in which a key is applied."""

from __future__ import annotations

from psycopg import sql

from restructure.catalog.spool import Spool
from restructure.catalog.suspects import Suspects
from restructure.model.names import Names
from restructure.postgres.connect import Connection

_FEW = 2_000
"""Keys that are looked up one by one, some milliseconds of work; more of them count as being everywhere."""


class Touched:
    """Marks ranges as changed, right before the applier changes rows in them.

    The mark commits before the change: it may be there without it, and never the other way round.
    ``ranged``: how many key columns a bound has.
    """

    def __init__(
        self, job: int, names: Names, spool: Spool, suspects: Suspects, ranged: int
    ) -> None:
        self._words = {"job": job, "direction": str(names.direction), "few": _FEW}
        self._mark = sql.SQL(
            "WITH head AS MATERIALIZED (SELECT * FROM {spool} WHERE id > %(low)s AND id <= %(high)s"
            " LIMIT %(few)s + 1),"
            " whole AS MATERIALIZED (SELECT count(*) > %(few)s OR count(truncated) > 0 AS all FROM head),"
            " unit AS MATERIALIZED (SELECT DISTINCT coalesce((SELECT number FROM {bounds} AS b"
            " WHERE ({fields}) <= ({keys}) ORDER BY {down} LIMIT 1), 0) AS number"
            " FROM head AS h WHERE NOT (SELECT w.all FROM whole AS w))"
            " UPDATE restructure.verified AS v SET changed = true"
            " WHERE v.job = %(job)s AND v.direction = %(direction)s AND NOT v.changed"
            " AND ((SELECT w.all FROM whole AS w)"
            " OR EXISTS (SELECT FROM unit AS u WHERE u.number >= v.first AND u.number < v.past))"
        ).format(
            spool=spool.table,
            bounds=suspects.bounds,
            fields=sql.SQL(", ").join(
                sql.Identifier("b", field) for field in spool.fields[:ranged]
            ),
            keys=sql.SQL(", ").join(sql.Identifier("h", field) for field in spool.fields[:ranged]),
            down=sql.SQL(", ").join(
                sql.SQL("b.{} DESC").format(sql.Identifier(field))
                for field in spool.fields[:ranged]
            ),
        )

    def mark(self, session: Connection, low: int, high: int) -> None:
        """Spool rows with an id above ``low`` up to ``high`` are about to be applied."""
        session.execute(self._mark, {**self._words, "low": low, "high": high})
