"""Making a logical replication slot, and leaving nothing half-made behind."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg
from psycopg import pq, sql

from restructure.errors import Interrupted, NotNow, OperatorNeeded
from restructure.model.lsn import Lsn
from restructure.postgres.connect import Connection, connect_replication
from restructure.postgres.settled import Holder, name_holders
from restructure.postgres.slot import drop_slot, end, read_slot, settle

_TELL_EVERY = 5.0

Waiting = Callable[[Sequence[Holder]], None]

_BLOCKERS = """
SELECT 'has a transaction id, ' || coalesce(state, backend_type), pid, application_name,
       usename, datname, extract(epoch FROM clock_timestamp() - xact_start)::float8,
       age(backend_xid) AS age
  FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT 'is prepared and not finished', NULL, format('prepared transaction %L', gid),
       owner, database, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)
  FROM pg_prepared_xacts
 ORDER BY age DESC
"""


def blockers(connection: Connection) -> list[Holder]:
    """All transactions of the whole cluster that have an id, the oldest first.

    Making a slot waits for each of them, in whatever database (snapbuild.c,
    SnapBuildWaitSnapshot).
    """
    return [Holder(*row[:6]) for row in connection.execute(_BLOCKERS)]


def create_slot(
    dsn: str,
    name: str,
    *,
    job: str,
    watch: Connection,
    timeout: float = 30.0,
    waiting: Waiting | None = None,
    interrupted: threading.Event | None = None,
) -> Lsn:
    """Make the slot and return where it starts; everything that commits after is delivered.

    It is made over the replication protocol with an exported snapshot, which is not used: only
    then is a full snapshot built, never one taken from another slot's files, which on old minor
    releases could begin inside a transaction (PostgreSQL commit bb19b70081).

    ``watch`` is an autocommit session of the same database; no transaction of ours may be open,
    for it would be waited for. ``waiting`` is told who is waited for, first at once and then
    every few seconds; it may raise to stop. Raises NotNow naming them after ``timeout`` seconds,
    Interrupted soon after ``interrupted`` is set, and OperatorNeeded where the server refuses.
    Whatever is raised, no half-made slot stays.
    """
    tell = waiting or (lambda holders: None)
    interrupted = interrupted or threading.Event()
    holders = blockers(watch)
    if holders:
        tell(holders)
    session = connect_replication(dsn, job=job, role="slot")
    try:
        session.pgconn.send_query(
            sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')")
            .format(sql.Identifier(name))
            .as_bytes(session)
        )
        try:
            _wait_for_answer(session, name, watch, timeout, tell, interrupted)
        except BaseException:
            # Closing our end is not enough: a server that waits for a transaction does not look
            # at its client, and the half-made slot would hold back WAL until then.
            with suppress(psycopg.Error):
                _undo(watch, session.info.backend_pid, name, job)
            raise
        _require_made(session, name)
    finally:
        session.close()
    facts = read_slot(watch, name)
    if facts is None or facts.confirmed_flush is None:
        raise OperatorNeeded(f"replication slot {name} was made and is gone")
    return facts.confirmed_flush


def _wait_for_answer(
    session: psycopg.Connection,
    name: str,
    watch: Connection,
    timeout: float,
    tell: Waiting,
    interrupted: threading.Event,
) -> None:
    poll = select.poll()
    poll.register(session.pgconn.socket, select.POLLIN)
    deadline = time.monotonic() + timeout
    next_tell = time.monotonic() + _TELL_EVERY
    session.pgconn.flush()
    while session.pgconn.is_busy():
        if interrupted.is_set():
            raise Interrupted(f"interrupted while replication slot {name} was being made")
        now = time.monotonic()
        if now >= deadline:
            raise NotNow(
                f"replication slot {name} was not ready within {timeout:g} s; it waits for "
                + (name_holders(blockers(watch)) or "transactions that have just ended"),
                hint="Let these transactions end (COMMIT PREPARED or ROLLBACK PREPARED for a "
                "prepared one), or allow more with stream.slot_timeout; then run the plan again.",
            )
        if now >= next_tell:
            next_tell = now + _TELL_EVERY
            tell(blockers(watch))
        if poll.poll(max(1.0, min(deadline - now, 0.25) * 1000)):
            session.pgconn.consume_input()


def _require_made(session: psycopg.Connection, name: str) -> None:
    result = session.pgconn.get_result()
    if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
        return
    told = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) if result else None
    state = result.error_field(pq.DiagnosticField.SQLSTATE) if result else None
    reason = (told or b"no answer").decode("utf-8", "replace")
    raise OperatorNeeded(
        f"replication slot {name} cannot be made: {reason}",
        hint=_ADVICE.get(state or b"", "See the server's log."),
    )


_ADVICE = {
    b"53400": "All replication slots are in use: drop one or raise max_replication_slots.",
    b"42501": "The role needs the REPLICATION attribute.",
    b"55000": "wal_level must be logical.",
    b"42710": "Somebody made a slot of this name in the same moment.",
    b"57P01": "The session was ended by an administrator: run this again.",
}


def _undo(watch: Connection, pid: int, name: str, job: str) -> None:
    """End the session that makes the slot, see it gone; drop what it made in the last moment."""
    end(watch, pid)
    facts = settle(watch, name, job)
    if facts is not None and facts.foreign is None and facts.active_pid is None:
        drop_slot(watch, name, job=job)
