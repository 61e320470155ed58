"""Drift: the source must stay the table that the job was prepared for."""

from __future__ import annotations

import psycopg
from psycopg import errors as pg
from psycopg import sql

from restructure.errors import SchemaDrift
from restructure.ports import Stream
from restructure.postgres.connect import Connection
from restructure.shape.fingerprint import Fingerprint, compare, fingerprint
from restructure.shape.table import Table

_HINT = "Undo the change, or abort the job and start over with the table as it is now."


class Guard:
    """Compares the source with its fingerprint, every loop and under the swap's lock.

    That is of setup, where the shadow was built after all of it, or of the last swap (``swapped``):
    then both tables are what they are, and only what is about rows must stay. ``besides`` is what
    else has changed since, in words.
    """

    def __init__(
        self, source: Table, expected: Fingerprint, job: int, *, swapped: bool = False
    ) -> None:
        self.besides: tuple[str, ...] = ()
        self._source = source
        self._expected = expected
        self._job = job
        self._swapped = swapped
        self._harmless: dict[str, int] = dict(expected.files)

    def check(self, connection: Connection) -> Fingerprint:
        """Raise SchemaDrift in words where something changed that the shadow was built after.

        What the swap carries as it is then (grants, comments and the like) may change: the
        fingerprint of now is returned, so that two of them can be compared.
        """
        now = fingerprint(connection, self._source.relation)
        drift = compare(self._expected, now)
        if self._swapped:
            self.besides = drift.hard
            drift = compare(self._expected.of_rows(), now.of_rows())
        if drift.hard:
            raise SchemaDrift(
                f"{self._source.relation} is no longer the table this job was prepared for: "
                + "; ".join(drift.hard),
                hint=_HINT,
            )
        if now.files != self._harmless:
            self._look_at_rewrite(connection)
            self._harmless = dict(now.files)
        return now

    def _look_at_rewrite(self, connection: Connection) -> None:
        """Tell VACUUM FULL, CLUSTER and TRUNCATE from a rewrite that changed values.

        The first two change no row, the third is in the stream. ALTER COLUMN … TYPE … USING may keep the
        type and change every value without a word in the stream, but it writes the column's row in
        pg_attribute (tablecmds.c, ATExecAlterColumnType): is one younger than the copy?
        """
        row = connection.execute(
            """
            SELECT string_agg(DISTINCT a.attname, ', ')
            FROM restructure.job j, pg_attribute a
            WHERE j.id = %s AND a.attrelid = ANY(%s::oid[]) AND a.attnum > 0
              AND age(a.xmin) <= (pg_snapshot_xmax(pg_current_snapshot())::text::numeric
                                  - pg_snapshot_xmax(j.copy_snapshot)::text::numeric)
            """,
            (
                self._job,
                [relation.oid for relation in (self._source.relation, *self._source.leaves)],
            ),
        ).fetchone()
        if row and row[0]:
            raise SchemaDrift(
                f"{self._source.relation} was rewritten and its columns changed since the copy began: {row[0]}",
                hint=_HINT,
            )


def spare_clients(connection: Connection, source: Table, stream: Stream) -> None:
    """After a drift: drop the stream where our publication now makes clients' writes fail.

    A published table without a usable replica identity refuses UPDATE and DELETE
    (execReplication.c, CheckCmdReplicaIdentity). EXPLAIN raises the same and touches nothing.
    The stream is of no more use then: deletes may be missing from it already.
    """
    rows = connection.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE oid = ANY(%s::oid[])",
        ([leaf.oid for leaf in source.leaves],),
    ).fetchall()
    for (name,) in rows:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("SET LOCAL lock_timeout = '1s'")
                connection.execute(
                    sql.SQL("EXPLAIN DELETE FROM {} WHERE false").format(sql.SQL(name))
                )
        except (pg.ObjectNotInPrerequisiteState, pg.InvalidColumnReference):
            stream.drop()
            return
        except psycopg.DatabaseError:
            continue  # dropped or locked since: nobody writes to it now
