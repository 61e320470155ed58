"""Settledness: who may still hide, or not yet see, what was committed.

PostgreSQL writes a commit to the WAL before it makes it visible (xact.c,
RecordTransactionCommit): a change may be decoded, and a slot may lie behind it, while new snapshots
do not show it yet. The functions here say when that is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from psycopg import sql

from restructure.errors import NotNow
from restructure.postgres.connect import Connection


@dataclass(frozen=True, slots=True)
class Holder:
    """A session, a prepared transaction or a slot that stands in the way, and with what.

    ``pid`` is None for a prepared transaction and a slot, which ``label`` names. ``seconds``
    is the age of the transaction, None where our role may not see it.
    """

    what: str
    pid: int | None
    label: str
    user: str | None
    database: str | None
    seconds: float | None

    def __str__(self) -> str:
        name = f"pid {self.pid}" if self.pid is not None else self.label
        about = [f"{self.user or 'unknown user'} on {self.database or 'no database'}"]
        if self.pid is not None and self.label:
            about.append(self.label)
        if self.seconds is not None:
            about.append(f"for {self.seconds:.0f} s")
        return f"{name} ({', '.join([*about, self.what])})"


def name_holders(holders: Sequence[Holder], most: int = 5) -> str:
    """The first few holders in one line."""
    named = "; ".join(str(holder) for holder in holders[:most])
    return f"{named}; and {len(holders) - most} more" if len(holders) > most else named


def gate(xid: sql.Composable) -> sql.Composed:
    """A condition: the top-level transaction ``xid`` (xid8) is over for every new snapshot.

    Not valid for subtransactions (functions-info in the manual); true after a rollback too.
    """
    return sql.SQL("pg_visible_in_snapshot({}, pg_current_snapshot())").format(xid)


WRITING_MODES = (
    "RowExclusiveLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
"""Modes under which rows of a table change. SHARE UPDATE EXCLUSIVE and SHARE are left out:
VACUUM, ANALYZE and CREATE INDEX hold them for hours and write no row."""

_WRITERS = """
SELECT l.virtualtransaction, l.pid, coalesce(a.application_name, p.gids, 'about to end'),
       coalesce(a.usename, p.owner), coalesce(a.datname, p.database), a.state,
       extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float8
  FROM (SELECT DISTINCT virtualtransaction, pid FROM pg_locks
         WHERE locktype = 'relation' AND granted AND mode = ANY(%(modes)s)
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND relation = ANY(%(oids)s::oid[])
           AND pid IS DISTINCT FROM pg_backend_pid()) AS l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN LATERAL (
       SELECT 'prepared transaction ' || string_agg(quote_literal(x.gid), ', ') AS gids,
              min(x.owner::text) AS owner, min(x.database::text) AS database,
              min(x.prepared) AS prepared
         FROM pg_locks t JOIN pg_prepared_xacts x ON x.transaction = t.transactionid
        WHERE l.pid IS NULL AND t.locktype = 'transactionid' AND t.pid IS NULL
          AND t.virtualtransaction = l.virtualtransaction) AS p ON true
 ORDER BY 7 DESC NULLS LAST
"""


def writers(connection: Connection, oids: Iterable[int]) -> dict[str, Holder]:
    """Transactions that hold a writing lock on any of the relations, by virtual id.

    Locks are let go only after the transaction has become visible, so one that is not here any
    more is settled. A prepared transaction has no pid, and keeps only one half of its virtual
    id (twophase.c, MarkAsPreparingGuts): two of them may look like one.
    """
    rows = connection.execute(_WRITERS, {"modes": list(WRITING_MODES), "oids": list(oids)})
    return {
        row[0]: Holder(
            what=f"holds a write lock, {row[5] or 'not finished'}",
            pid=row[1],
            label=row[2],
            user=row[3],
            database=row[4],
            seconds=row[6],
        )
        for row in rows
    }


def wait_for_writers(
    connection: Connection,
    oids: Iterable[int],
    timeout: float,
    *,
    waiting: Callable[[Sequence[Holder]], None] | None = None,
    interval: float = 0.05,
) -> None:
    """The barrier: wait until all who now hold a writing lock on the relations are gone.

    Those who come later are not waited for: the slot has their rows. Needs no lock and blocks
    nobody. ``connection`` must be in autocommit, with no transaction open. ``waiting`` is told
    every ``interval`` seconds who is left, and may raise to stop. Raises NotNow naming them
    after ``timeout`` seconds.
    """
    wanted = list(oids)
    deadline = time.monotonic() + timeout
    first = writers(connection, wanted)
    while first:
        present = writers(connection, wanted)
        first = {virtual: present[virtual] for virtual in first if virtual in present}
        if not first:
            return
        if time.monotonic() >= deadline:
            raise NotNow(
                f"transactions that write to the source did not end within {timeout:g} s: "
                + name_holders(list(first.values())),
                hint="Wait for them or end them; a prepared one ends with COMMIT PREPARED or "
                "ROLLBACK PREPARED.",
            )
        if waiting is not None:
            waiting(list(first.values()))
        time.sleep(interval)


_OLD_SNAPSHOTS = """
WITH horizon AS (
  SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric AS next, %(xid)s::numeric AS xid)
SELECT what, pid, label, usename, datname, seconds
  FROM (SELECT 'reads with an old snapshot, ' || coalesce(state, backend_type) AS what,
               pid, application_name AS label, usename, datname,
               extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
               age(backend_xmin) AS age
          FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
           AND (datname = current_database() OR datname IS NULL)
        UNION ALL
        SELECT 'is prepared and not finished', NULL, format('prepared transaction %%L', gid),
               owner, database,
               extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)
          FROM pg_prepared_xacts WHERE database = current_database()
        UNION ALL
        SELECT 'holds back old rows for a standby', NULL, format('replication slot %%I', slot_name),
               NULL, database, NULL, age(xmin)
          FROM pg_replication_slots) AS holder, horizon
 WHERE age > horizon.next - horizon.xid
 ORDER BY age DESC
"""


def old_snapshots(connection: Connection, xid: int) -> list[Holder]:
    """Who may still read with a snapshot from before transaction ``xid`` (64-bit) ended.

    Sessions of this database, walsenders that report a standby's snapshots, prepared
    transactions of this database, and slots with an xmin; the oldest first. Such a reader, when it
    first touches the new table after the swap, sees none of the rows that ``xid`` or later
    transactions brought (mvcc-caveats in the manual). Autovacuum reads nothing of ours.
    """
    rows = connection.execute(_OLD_SNAPSHOTS, {"xid": xid})
    return [Holder(*row) for row in rows]


SNAPSHOT_WITH_OURSELVES = """
SELECT least(low, own) || ':' || greatest(high, own + 1) || ':' || coalesce((
           SELECT string_agg(xid::text, ',' ORDER BY xid)
           FROM (SELECT pg_snapshot_xip(now)::text::int8
                 UNION SELECT generate_series(high, own - 1)) AS running (xid)
           WHERE xid <> own), '')
FROM (SELECT now, pg_snapshot_xmin(now)::text::int8, pg_snapshot_xmax(now)::text::int8,
             pg_current_xact_id()::text::int8
      FROM pg_current_snapshot() AS now) AS snapshot (now, low, high, own)
"""
"""The snapshot of now as text, as if this very transaction had committed.

In its own snapshot it may be one that is still to come. Whatever may have begun between the last
that has ended and it counts as running (PostgreSQL docs, functions-info: xmin:xmax:xip_list).
"""
