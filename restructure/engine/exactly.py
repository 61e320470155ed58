"""The exact way to apply, for when a MERGE meets a unique value that is only passing through.

A swap of two unique values fails row by row although source and shadow are both right, and
fails even with both keys in the batch. Here one snapshot of the source is taken *first*, the
stream is drained past it, and then every key spooled up to there is deleted and read anew from
that snapshot: the shadow becomes the source as of it, so that whatever is still refused is
refused by the new shape itself.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from restructure.engine.refusal import is_row_error, reason
from restructure.engine.transform import SETTLED, Transform
from restructure.postgres.connect import Connection, connect
from restructure.postgres.planner import force_index_lookups


class ExactApplier:
    """Applies everything spooled in one REPEATABLE READ transaction of its own session."""

    def __init__(self, transform: Transform, dsn: str, job_name: str) -> None:
        self._transform = transform
        self._dsn = dsn
        self._job_name = job_name
        self._session: Connection | None = None
        spool = transform.spool
        self._keys = sql.SQL(", ").join(spool.columns)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    def apply(
        self,
        reader: Connection,
        fence: Callable[[], None],
        *,
        before: Callable[[Connection, int, int], None] | None = None,
        then: Callable[[Connection], None] | None = None,
    ) -> int:
        """Apply all that is spooled; return how many spool rows went.

        ``fence`` returns when everything committed before its call is in the spool; ``reader`` is
        a READ COMMITTED session that sees it there. ``before`` hears of the spool rows that are about
        to be applied. ``then`` is called inside the transaction, when the shadow is what the source is
        in its snapshot; not where a truncation waits, for then it is not.
        """
        session = self._open()
        with session.transaction():
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            session.execute("SELECT pg_current_snapshot()")
            fence()
            high = self._hand_over(reader, session)
            if before is not None:
                before(reader, 0, high)
            session.execute(self._transform.delete_batch(), {})
            total = self._number(session)
            self._insert(session, 0, total)
            if then is not None and not self._truncated(reader):
                then(session)
            cursor = session.execute(
                sql.SQL("DELETE FROM {} WHERE id <= %s AND truncated IS NULL AND {}").format(
                    self._transform.spool.table, SETTLED
                ),
                (high,),
            )
            return cursor.rowcount

    def _open(self) -> Connection:
        if self._session is None or self._session.closed:
            self._session = connect(self._dsn, job=self._job_name, role="apply exactly")
            self._session.execute(
                sql.SQL(
                    "CREATE TEMPORARY TABLE restructure_batch ON COMMIT DELETE ROWS AS"
                    " SELECT 0::bigint AS number, {} FROM {} WHERE false"
                ).format(self._keys, self._transform.spool.table)
            )
            force_index_lookups(self._session)
        return self._session

    def _hand_over(self, reader: Connection, session: Connection) -> int:
        """Copy the spooled keys into the batch: our snapshot is too old to see the newest ones.

        Stops before a truncation. Returns the highest id taken.
        """
        spool = self._transform.spool.table
        row = reader.execute(
            sql.SQL(
                "SELECT coalesce((SELECT min(id) - 1 FROM {0} WHERE truncated IS NOT NULL),"
                " (SELECT max(id) FROM {0}), 0)"
            ).format(spool)
        ).fetchone()
        high = int(row[0]) if row else 0
        source = sql.SQL(
            "COPY (SELECT row_number() OVER () - 1, d.* FROM"
            " (SELECT DISTINCT {} FROM {} WHERE id <= {} AND truncated IS NULL) AS d) TO STDOUT (FORMAT BINARY)"
        ).format(self._keys, spool, sql.Literal(high))
        target = sql.SQL(
            "COPY pg_temp.restructure_batch (number, {}) FROM STDIN (FORMAT BINARY)"
        ).format(self._keys)
        with (
            reader.cursor() as read,
            session.cursor() as write,
            read.copy(source) as rows,
            write.copy(target) as copy,
        ):
            for data in rows:
                copy.write(data)
        return high

    def _truncated(self, reader: Connection) -> bool:
        row = reader.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE truncated IS NOT NULL)").format(
                self._transform.spool.table
            )
        ).fetchone()
        return bool(row and row[0])

    def _number(self, session: Connection) -> int:
        row = session.execute("SELECT count(*) FROM pg_temp.restructure_batch").fetchone()
        return int(row[0]) if row else 0

    def _insert(self, session: Connection, first: int, end: int) -> None:
        """Insert keys ``first`` to before ``end``; halve where refused, quarantine single keys."""
        if first >= end:
            return
        try:
            with session.transaction():
                session.execute(self._transform.insert_batch(), {"first": first, "end": end})
                session.execute(self._transform.free_batch(), {"first": first, "end": end})
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            if end - first == 1:
                self._quarantine(session, first, error)
                return
            middle = (first + end) // 2
            self._insert(session, first, middle)
            self._insert(session, middle, end)

    def _quarantine(self, session: Connection, number: int, error: psycopg.Error) -> None:
        session.execute(
            sql.SQL(
                "INSERT INTO {} ({}, sqlstate, reason)"
                " SELECT {}, %s, %s FROM pg_temp.restructure_batch WHERE number = %s"
                " ON CONFLICT ({}) DO UPDATE SET sqlstate = EXCLUDED.sqlstate,"
                " reason = EXCLUDED.reason, at = EXCLUDED.at"
            ).format(self._transform.spool.quarantine, self._keys, self._keys, self._keys),
            (error.sqlstate, reason(error), number),
        )
