"""The throttle: when the copy waits or goes slowly, and when the job gives up its slot for the disk's sake."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import psycopg

from restructure.errors import OperatorNeeded, PlanError
from restructure.plan.model import Throttle
from restructure.ports import StreamLag
from restructure.postgres.connect import Connection

_LIMIT_FACTOR = 3
"""Without ``wal_limit``, the slot is given up at this many times ``wal_retained``."""

_QUERY_TIMEOUT = "5s"


class SlotGivenUp(OperatorNeeded):
    """The stream held more WAL than the plan allows: its slot was dropped to save the server's disk."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the copy must wait, or must go slowly. None: it need not."""

    hold: str | None = None
    slow: str | None = None


def judge(connection: Connection, limits: Throttle, lag: StreamLag) -> Verdict:
    """Look at everything the plan limits. Raises PlanError where its query is not usable."""
    hold = _replica_lag(connection, limits.replica_lag) or _query(connection, limits)
    slow = None
    if limits.wal_retained is not None and lag.retained_bytes > limits.wal_retained:
        slow = f"the slot retains {size(lag.retained_bytes)} of WAL, more than {size(limits.wal_retained)}"
    return Verdict(hold, slow)


def check_query(connection: Connection, limits: Throttle) -> None:
    """Ask the plan's query once. Raises PlanError where it is not usable."""
    _query(connection, limits)


def wal_limit(limits: Throttle) -> int | None:
    """Bytes of retained WAL past which the slot is given up. None: never."""
    if limits.wal_limit is not None:
        return limits.wal_limit
    return limits.wal_retained * _LIMIT_FACTOR if limits.wal_retained is not None else None


def size(count: int) -> str:
    """Bytes for people.

    >>> size(20 * 1024**3)
    '20.0 GiB'
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _replica_lag(connection: Connection, limit: timedelta | None) -> str | None:
    """Replay lag of physical standbys. Logical walsenders (ours too) are not replicas."""
    if limit is None:
        return None
    row = connection.execute(
        """
        SELECT r.application_name, r.replay_lag
        FROM pg_stat_replication r
        WHERE r.replay_lag > %s
          AND NOT EXISTS (SELECT FROM pg_replication_slots s
                          WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
        ORDER BY r.replay_lag DESC LIMIT 1
        """,
        (limit,),
    ).fetchone()
    return f"replica {row[0]} is {row[1].total_seconds():.1f} s behind" if row else None


def _query(connection: Connection, limits: Throttle) -> str | None:
    if limits.query is None:
        return None
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(
                "SELECT set_config('statement_timeout', %s, true)", (_QUERY_TIMEOUT,)
            )
            connection.execute("SET TRANSACTION READ ONLY")
            row = connection.execute(limits.query, prepare=True).fetchone()
    except psycopg.errors.QueryCanceled:
        return f"throttle.query did not answer within {_QUERY_TIMEOUT}"
    except psycopg.OperationalError:
        raise
    except psycopg.ProgrammingError as error:
        raise PlanError(f"throttle.query: {error.diag.message_primary or error}") from error
    except psycopg.Error as error:  # its message may quote a value of a row
        raise PlanError(f"throttle.query fails: {type(error).__name__}") from error
    if row is not None and len(row) != 1:
        raise PlanError(f"throttle.query must return one value, not {len(row)}")
    value = row[0] if row else None
    if value is None or value is False:
        return None
    if value is True:
        return "throttle.query says so"
    if not isinstance(value, int | float | Decimal):
        raise PlanError("throttle.query must return a boolean or a number")
    if limits.query_limit is None:
        raise PlanError(
            "throttle.query returns a number and there is no throttle.query_limit",
            hint="Add query_limit, or let the query return a boolean (true: wait).",
        )
    if value > limits.query_limit:
        return f"throttle.query returned {float(value):g}, more than {limits.query_limit:g}"
    return None
