"""The judge: is a difference lag, or damage?

Whoever judges is the thread that applies, so that nothing is applied meanwhile. Every suspect is
compared once more, in a new snapshot; then the stream is drained up to now. A change that the snapshot
saw was committed before it, and so it was applied before, or is in the spool now. Hence a key that
differed and is not in the spool is damage; one that is there is in flight, and is judged again when it
was applied.

A row that never comes to rest is judged another way: everything is applied from one snapshot of the
source, as engine/exactly.py does it, and compared in the same transaction, in which no change can be
under way.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

from restructure.catalog.suspects import Suspects
from restructure.engine.digest import NEW, Digest
from restructure.engine.refusal import is_row_error
from restructure.postgres.connect import Connection

_SUSPECT = "restructure_suspect"


class Judge:
    """Judges the suspects of one job. ``session`` is READ COMMITTED, in autocommit, and finds rows by index."""

    def __init__(self, digest: Digest, suspects: Suspects, session: Connection) -> None:
        self._digest = digest
        self._suspects = suspects
        self._session = session

    @property
    def waiting(self) -> int:
        """How many suspects are not judged yet."""
        return self._suspects.count(self._session, sure=False)

    def judge(self, fence: Callable[[], None]) -> None:
        """Judge those that are not in flight. ``fence``: all that is committed now is in the spool."""
        try:
            differing = self._compare(self._session)
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            return  # a row that the new shape refuses, and that is not in quarantine yet
        if differing:
            fence()
            self._decide(self._session, differing, in_flight=True)

    def judge_exactly(self, session: Connection) -> None:
        """Judge all, in the transaction that has made the shadow what the source is in its snapshot."""
        if differing := self._compare(session):
            self._decide(session, differing, in_flight=False)

    def _compare(self, session: Connection) -> list[int]:
        """Compare every suspect in one snapshot; let the equal go, return the others' ids."""
        row = session.execute(self._digest.any_refused).fetchone()
        assert row is not None
        found = session.execute(self._look(refused=row[0]), {}).fetchone()
        return list(found[0] or ()) if found else []

    def _decide(self, session: Connection, ids: list[int], *, in_flight: bool) -> None:
        refused = self._refused()
        under_way = self._in_flight() if in_flight else []
        with session.transaction():
            # the spool has no index on keys
            session.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_seqscan = on")
            self._suspects.condemn(session, ids, [refused, *under_way])
            self._suspects.release(session, ids, refused)

    def _look(self, *, refused: bool) -> sql.Composed:
        digest = self._digest
        suspected = digest.suspected(_SUSPECT)
        return sql.SQL(
            "WITH looked_at AS MATERIALIZED (SELECT {suspect}.id,"
            " (SELECT array_agg({old} ORDER BY {old}) FROM {source} AS {alias} WHERE {found}{where})"
            " IS NOT DISTINCT FROM"
            " (SELECT array_agg({made} ORDER BY {made}) FROM {target} AS {new} WHERE {same}) AS equal"
            " FROM {suspects} AS {suspect} WHERE NOT {suspect}.sure),"
            " gone AS (DELETE FROM {suspects} AS s USING looked_at AS l WHERE s.id = l.id AND l.equal)"
            " SELECT array_agg(id) FROM looked_at WHERE NOT equal"
        ).format(
            suspect=sql.Identifier(_SUSPECT),
            suspects=self._suspects.table,
            old=digest.of_source(refused=refused),
            source=digest.source,
            alias=digest.alias,
            found=digest.made_by(suspected),
            where=digest.where,
            made=digest.of_target(),
            target=digest.target,
            new=sql.Identifier(NEW),
            same=digest.same_target(digest.target_key, suspected),
        )

    def _in_flight(self) -> list[sql.Composed]:
        """Queries that find a row where nothing can be said yet of suspect ``s``: its change is spooled."""
        digest = self._digest
        return [
            sql.SQL("SELECT FROM {} AS p WHERE p.truncated IS NOT NULL").format(digest.spool.table),
            sql.SQL("SELECT FROM {} AS p WHERE {}").format(
                digest.spool.table,
                digest.same_target(digest.spooled_as_target("p"), digest.suspected("s")),
            ),
        ]

    def _refused(self) -> sql.Composed:
        """A query that finds a row where suspect ``s`` is in quarantine, and so known to be missing."""
        digest = self._digest
        return sql.SQL("SELECT FROM {} AS q WHERE {}").format(
            digest.spool.quarantine,
            digest.same_target(digest.spooled_as_target("q"), digest.suspected("s")),
        )
