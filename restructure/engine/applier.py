"""The applier: spooled keys become rows of the shadow table, read anew from the source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg import sql

from restructure.engine.control import Control
from restructure.engine.exactly import ExactApplier
from restructure.engine.refusal import is_row_error
from restructure.engine.transform import SETTLED, Transform
from restructure.errors import NotNow
from restructure.postgres.connect import Connection, connect
from restructure.postgres.planner import force_index_lookups
from restructure.postgres.prepared import prepare

BATCH_KEYS = 20_000
"""Keys per MERGE and applier. Below 5,000 the statement's overhead shows, above 20,000 the
planner's estimates and the length of the transaction do."""

_DIVIDE_FROM = 2_000
"""Below this a second applier costs more than it gains."""


@dataclass(frozen=True, slots=True)
class Window:
    """Spool rows with ``low`` < id <= ``high``; ``truncation`` is the id of one that comes first.

    ``freeing``: there are keys in quarantine.
    """

    low: int
    high: int
    rows: int
    truncation: int | None
    freeing: bool = False


class Applier:
    """Applies the spool in windows, with two sessions over disjoint keys where there is a backlog."""

    def __init__(self, transform: Transform, dsn: str, job_name: str, control: Control) -> None:
        self.transform = transform
        self.applied_keys = 0
        self._dsn = dsn
        self._job_name = job_name
        self._control = control
        self._base = 0  # every row up to here is gone
        self._low = 0  # where the next window begins; rows between may wait to be settled
        self._sessions: list[Connection] = []
        self._exact = ExactApplier(transform, dsn, job_name)
        self._divided = [
            transform.merge(divided=True, freeing=freeing) for freeing in (False, True)
        ]
        self._whole = [transform.merge(divided=False, freeing=freeing) for freeing in (False, True)]
        self._copy_snapshot: str | None = None
        self.before: Callable[[Connection, int, int], None] | None = None
        """Hears of the spool rows, from above the first id to the second, that are about to be applied."""

    def apply_exactly(self, fence: Callable[[], None], then: Callable[[Connection], None]) -> int:
        """Apply all from one snapshot, and call ``then`` in the same transaction; see ExactApplier."""
        self._ensure_sessions()
        gone = self._exact.apply(self._sessions[0], fence, before=self.before, then=then)
        self.applied_keys += gone
        return gone

    def void_truncations_before(self, snapshot: str) -> None:
        """Ignore truncations that the copy began after: ``snapshot`` is the copy's first one."""
        self._copy_snapshot = snapshot

    def apply(self, fence: Callable[[], None]) -> int:
        """Apply one window; return how many spool rows went. 0: nothing (settled) is waiting.

        ``fence`` is called where the exact way needs everything committed so far in the
        spool. Rows that the new shape refuses end in quarantine.
        """
        self._ensure_sessions()
        while (window := self._next_window()) is not None:
            gone = self._apply_window(window, fence)
            if gone is None:
                break
            if gone:
                self.applied_keys += gone
                return gone
        self._low = self._base
        return 0

    def _apply_window(self, window: Window, fence: Callable[[], None]) -> int | None:
        """How many rows went; None where nothing beyond this window may be touched yet."""
        if self.before is not None:
            self.before(self._sessions[0], window.low, window.high)
        if window.truncation is not None:
            return self._apply_truncation(window)
        try:
            self._merge(window)
        except psycopg.Error as error:
            # two rows for one: where the key of a table that retired is a part of the new one's
            exactly = pg.DeadlockDetected | pg.CardinalityViolation
            if not (is_row_error(error) or isinstance(error, exactly)):
                raise
            return self._exact.apply(self._sessions[0], fence, before=self.before)
        left = self._count(window)
        if not left and self._base == window.low:
            self._base = window.high
        self._low = window.high
        return window.rows - left

    def close(self) -> None:
        """Close the sessions; :meth:`apply` opens new ones."""
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        self._exact.close()
        self._base = self._low = 0

    def _ensure_sessions(self) -> None:
        if any(session.closed for session in self._sessions):
            self.close()
        while len(self._sessions) < 2:
            session = connect(
                self._dsn, job=self._job_name, role=f"apply {len(self._sessions) + 1}"
            )
            force_index_lookups(session)
            # an apply lost in a crash is done again, for its spool rows come back with it
            session.execute("SET synchronous_commit = off")
            self._sessions.append(session)

    def _next_window(self) -> Window | None:
        row = (
            self._sessions[0]
            .execute(
                sql.SQL(
                    "SELECT max(id), count(*), min(id) FILTER (WHERE truncated IS NOT NULL), min(id),"
                    " EXISTS (SELECT FROM {})"
                    " FROM (SELECT id, truncated FROM {} WHERE id > %s ORDER BY id LIMIT %s) AS head"
                ).format(self.transform.spool.quarantine, self.transform.spool.table),
                (self._low, 2 * BATCH_KEYS),
            )
            .fetchone()
        )
        if row is None or row[0] is None:
            return None
        high, rows, truncation, lowest, freeing = row
        if truncation is None:
            return Window(self._low, high, rows, None, freeing)
        if truncation == lowest:
            return Window(self._low, truncation, 1, truncation)
        ahead = Window(self._low, truncation - 1, 0, None)
        return Window(ahead.low, ahead.high, self._count(ahead), None, freeing)

    def _count(self, window: Window) -> int:
        row = (
            self._sessions[0]
            .execute(
                sql.SQL("SELECT count(*) FROM {} WHERE id > %s AND id <= %s").format(
                    self.transform.spool.table
                ),
                (window.low, window.high),
            )
            .fetchone()
        )
        return int(row[0]) if row else 0

    def _merge(self, window: Window) -> None:
        bounds: dict[str, Any] = {"low": window.low, "high": window.high}
        if window.rows < _DIVIDE_FROM or not self.transform.divisible:
            self._sessions[0].execute(self._whole[window.freeing], bounds)
            return
        divided = self._divided[window.freeing]

        def part(number: int) -> Callable[[], None]:
            return lambda: self._run_part(divided, number, bounds)

        self._control.crew.run_all([part(number) for number in range(len(self._sessions))])

    def _run_part(self, merge: sql.Composed, number: int, bounds: dict[str, Any]) -> None:
        self._sessions[number].execute(
            merge, {**bounds, "parts": len(self._sessions), "part": number}
        )

    def _apply_truncation(self, window: Window) -> int | None:
        """Empty the shadow of what was truncated, unless the copy came after.

        Waits (None) until everything before it is applied and it is settled itself.
        """
        session = self._sessions[0]
        spool = self.transform.spool.table
        with session.transaction():
            row = session.execute(
                sql.SQL(
                    "SELECT {settled} AND NOT EXISTS (SELECT FROM {spool} WHERE id < %(id)s),"
                    " coalesce(pg_visible_in_snapshot(xid, %(copy)s::text::pg_snapshot), false), truncated"
                    " FROM {spool} WHERE id = %(id)s"
                ).format(settled=SETTLED, spool=spool),
                {"copy": self._copy_snapshot, "id": window.truncation},
            ).fetchone()
            if row is None or not row[0]:
                return None
            if not row[1]:
                empty(session, self.transform, row[2])
            session.execute(
                sql.SQL("DELETE FROM {} WHERE id = %s").format(spool), (window.truncation,)
            )
        self._base = self._low = window.high
        return 1


class LastKeys:
    """Applies all that is spooled inside the swap, by a session that holds the source's ACCESS EXCLUSIVE lock.

    Nobody writes then, so every spooled transaction is visible, order means nothing, and the
    source is read once: delete, then insert, which no passing unique value can refuse.
    Everything that can be is done before the lock: clients wait for what is left.
    """

    def __init__(
        self,
        session: Connection,
        transform: Transform,
        copy_snapshot: str | None,
        *,
        accept_loss: bool = False,
    ) -> None:
        self._session = session
        self._transform = transform
        self._accept_loss = accept_loss
        spool = transform.spool
        self._statements: dict[str, sql.Composed] = {
            "look": sql.SQL(
                "SELECT count(*), array_agg(DISTINCT truncated) FILTER (WHERE truncated IS NOT NULL"
                " AND NOT coalesce(pg_visible_in_snapshot(xid, {}::pg_snapshot), false)),"
                " EXISTS (SELECT FROM {}) FROM {}"
            ).format(sql.Literal(copy_snapshot), spool.quarantine, spool.table),
            "delete": transform.delete_spooled(),
            "insert": transform.insert_spooled(),
            "forget": sql.SQL("DELETE FROM {}").format(spool.table),
        }

    def warm_up(self) -> None:
        """Prepare and plan every statement, which also fills this session's caches."""
        force_index_lookups(self._session)
        # planning takes longer than all else under the lock: plan once, before
        self._session.execute("SET plan_cache_mode = force_generic_plan")
        for name, statement in self._statements.items():
            prepare(self._session, f"restructure_{name}", statement)

    def apply(self) -> int:
        """Apply; return how many spool rows that were.

        Raises NotNow where a row is in quarantine, unless that loss is accepted.
        """
        count, truncated, refused = self._one("EXECUTE restructure_look")
        if refused and not self._accept_loss:
            why = ", ".join(self._transform.spool.refusals(self._session))
            raise NotNow(f"a row is refused by the new shape: {why}")
        if count:
            for relation in truncated or ():
                empty(self._session, self._transform, relation)
            self._session.execute(
                "EXECUTE restructure_delete; EXECUTE restructure_insert; EXECUTE restructure_forget"
            )
        return int(count)

    def _one(self, query: LiteralString) -> tuple[Any, ...]:
        row = self._session.execute(query).fetchone()
        assert row is not None
        return row


def empty(session: Connection, transform: Transform, relation: int) -> None:
    """Do to the target what a TRUNCATE of ``relation`` (the source or a leaf of it) did."""
    if relation == transform.source.oid:
        session.execute(transform.empty_target(), {})
        transform.spool.forget_refused(session)
        return
    session.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_seqscan = on")
    session.execute(transform.delete_absent(), {})
