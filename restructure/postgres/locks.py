"""Locks on relations: who holds what we want, and who keeps a session waiting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection

Mode = Literal[
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
]

MODES: tuple[Mode, ...] = get_args(Mode)
"""The weakest first (PostgreSQL docs, explicit-locking)."""

CONFLICTS: dict[Mode, tuple[str, ...]] = {
    "ACCESS SHARE": ("AccessExclusiveLock",),
    "ROW SHARE": ("ExclusiveLock", "AccessExclusiveLock"),
    "ROW EXCLUSIVE": (
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "SHARE UPDATE EXCLUSIVE": (
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "SHARE": (
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "SHARE ROW EXCLUSIVE": (
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "EXCLUSIVE": (
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
    "ACCESS EXCLUSIVE": (
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
        "ShareRowExclusiveLock",
        "ExclusiveLock",
        "AccessExclusiveLock",
    ),
}
"""What each mode conflicts with (PostgreSQL docs, explicit-locking, table 13.2), as pg_locks
spells it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A lock that a transaction of ours is going to take.

    ``lockable``: whether LOCK TABLE accepts the relation and locks nothing else (it refuses
    sequences, and locks all that a view reads). ``writer``: clients that write to it go on to lock
    the table of the swap, so while they wait for that they keep us from this.
    """

    relation: Relation
    mode: Mode
    lockable: bool = True
    writer: bool = False


@dataclass(frozen=True, slots=True)
class Blocker:
    """One holder of a lock that stands in our way. Ages are None where we may not see them.

    ``pid`` is None for a prepared transaction, which ``gid`` then names. ``command`` is the
    first word of the session's statement: more could show a row's values. ``mode`` and
    ``relation`` are empty where a session waits for something else than a relation.
    """

    kind: Literal["session", "prepared", "autovacuum", "wraparound"]
    pid: int | None
    user: str
    application: str
    state: str
    transaction_age: timedelta | None
    query_age: timedelta | None
    mode: str
    relation: str
    command: str = ""
    gid: str | None = None

    def __str__(self) -> str:
        held = f" holds {self.mode} on {self.relation}" if self.mode else " is in the way"
        if self.kind == "prepared":
            age = _aged(", prepared for", self.transaction_age)
            return f"prepared transaction '{self.gid}' of {self.user}{held}{age}"
        if self.kind != "session":
            why = " to prevent wraparound (never cancelled)" if self.kind == "wraparound" else ""
            return f"autovacuum{why}, pid {self.pid},{held}"
        who = f"pid {self.pid} ({self.user or 'unknown user'}"
        who += f", {self.application})" if self.application else ")"
        doing = f", {self.state}" if self.state else ""
        doing += f", last {self.command}" if self.command else ""
        ages = _aged(", in a transaction for", self.transaction_age)
        ages += _aged(", in this statement for", self.query_age) if self.state == "active" else ""
        return f"{who}{held}{doing}{ages}"


_HOLDERS = """
WITH held AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks WHERE granted)
SELECT CASE WHEN l.pid IS NULL THEN 'prepared'
            WHEN a.backend_type <> 'autovacuum worker' OR a.pid IS NULL THEN 'session'
            WHEN a.query LIKE '%%(to prevent wraparound)%%' THEN 'wraparound'
            ELSE 'autovacuum' END,
       l.pid, coalesce(a.usename, p.owner, ''), coalesce(a.application_name, ''),
       coalesce(a.state, ''), clock_timestamp() - coalesce(a.xact_start, p.prepared),
       clock_timestamp() - a.query_start, l.mode, l.relation::regclass::text,
       coalesce(upper(substring(a.query FROM '^[[:space:]]*([A-Za-z]+)')), ''), p.gid
FROM held l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN held x ON l.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid'
      AND x.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.locktype = 'relation' AND l.relation = ANY(%(oids)s::oid[])
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.mode = ANY(%(modes)s) AND l.pid IS DISTINCT FROM pg_backend_pid()
  AND a.backend_type IS DISTINCT FROM 'parallel worker'
ORDER BY array_position(%(modes)s, l.mode) DESC, l.relation
"""
"""A prepared transaction keeps its session's virtual id until a restart (MarkAsPreparing in
twophase.c), so it is found by its lock on its own xid and not as PostgreSQL's docs of pg_locks do.
"""

_SESSIONS = """
SELECT 'session', pid, coalesce(usename, ''), coalesce(application_name, ''), coalesce(state, ''),
       clock_timestamp() - xact_start, clock_timestamp() - query_start, '', '',
       coalesce(upper(substring(query FROM '^[[:space:]]*([A-Za-z]+)')), ''), NULL
FROM pg_catalog.pg_stat_activity WHERE pid = ANY(%(pids)s)
UNION ALL
SELECT 'prepared', NULL, owner, '', '', clock_timestamp() - prepared, NULL, '', '', '', gid
FROM pg_catalog.pg_prepared_xacts WHERE transaction = %(xid)s::xid
"""

_AWAITED = """
SELECT relation::int8, mode, transactionid::text FROM pg_catalog.pg_locks
WHERE pid = %s AND NOT granted
"""


def blockers(connection: Connection, oids: Sequence[int], mode: Mode) -> list[Blocker]:
    """Everybody who holds a lock on one of ``oids`` that ``mode`` conflicts with.

    Each holder once, with its strongest lock; the oldest transaction comes first. Our own
    session is left out.
    """
    parameters = {"oids": list(oids), "modes": list(CONFLICTS[mode])}
    found: dict[tuple[int | None, str | None], Blocker] = {}
    for row in connection.execute(_HOLDERS, parameters).fetchall():
        kind, pid, user, application, state, age, query_age, held, relation, command, gid = row
        found.setdefault(
            (pid, gid),
            Blocker(
                kind, pid, user, application, state, age, query_age, _spelled(held), relation,
                command, gid,
            ),
        )  # fmt: skip
    return sorted(found.values(), key=lambda b: b.transaction_age or timedelta(), reverse=True)


def waiting_on(connection: Connection, pid: int) -> list[Blocker]:
    """Whom the session ``pid`` waits for now, by pg_blocking_pids. Empty if it does not wait.

    Holders come first, then those who only queue before it. pg_blocking_pids shows a prepared
    transaction as 0 (PostgreSQL docs, functions-info).
    """
    row = connection.execute("SELECT pg_catalog.pg_blocking_pids(%s)", [pid]).fetchone()
    pids: set[int] = set(row[0]) if row else set()
    awaited = connection.execute(_AWAITED, [pid]).fetchone()
    if not pids or awaited is None:
        return []
    relation, mode, xid = awaited
    holders: list[Blocker] = []
    if relation is not None:
        holders = blockers(connection, [relation], _SPELLINGS[mode])
        holders = [holder for holder in holders if (holder.pid or 0) in pids]
    others = list(pids - {holder.pid or 0 for holder in holders})
    queue = connection.execute(_SESSIONS, {"pids": others, "xid": xid}).fetchall()
    return holders + [Blocker(*row) for row in queue]


_SPELLINGS: dict[str, Mode] = {
    "".join(word.capitalize() for word in mode.split()) + "Lock": mode for mode in CONFLICTS
}


def _spelled(mode: str) -> str:
    return _SPELLINGS.get(mode, mode)


def _aged(words: str, age: timedelta | None) -> str:
    return f"{words} {age.total_seconds():.1f} s" if age is not None else ""
