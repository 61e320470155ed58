"""Looks at the source's rows block range by block range, with several read-only sessions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from restructure.engine.control import Control
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.trial.new_row import NewRow
from restructure.engine.trial.rule import NotLookedAt, Rule
from restructure.engine.trial.tally import SHOWN, Tally
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection, connect

RAISING = 1000
"""Rows whose values raise errors are looked for one by one, up to so many."""

_FIRST_BLOCKS = 64
_LARGEST = 2048
"""Blocks of one statement: the keys of what it finds are in memory."""


@dataclass(frozen=True, slots=True)
class Span:
    """Row slots ``first`` up to, not including, ``end`` of a leaf; a block has ``Scan.slots``."""

    leaf: int
    first: int
    end: int


def read_only(dsn: str, job: str, role: str) -> Connection:
    """A session in which each statement is a transaction that can write nothing."""
    session = connect(dsn, job=job, role=role)
    session.execute("SET default_transaction_read_only = on")
    return session


class Scan:
    """Counts, for each rule, the rows that break it. ``complete`` turns False at RAISING."""

    def __init__(
        self,
        row: NewRow,
        rules: Sequence[Rule],
        tally: Tally,
        *,
        dsn: str,
        job: str,
        control: Control,
        target: float,
    ) -> None:
        self._row = row
        self._leaves = row.source.leaves
        self._rules = [*row.value_rules(), *row.length_rules(), *rules]
        self._tally = tally
        self._dsn = dsn
        self._job = job
        self._control = control
        self._target = target
        self._blocks = float(_FIRST_BLOCKS)
        self._raised = 0
        self._todo: deque[Span] = deque()
        self._lock = threading.Lock()
        self.slots = 512
        self.complete = True
        self.blocks = 0
        self.blocks_done = 0

    def prove(self, session: Connection) -> list[NotLookedAt]:
        """Have every rule parsed, and put aside those that cannot be asked."""
        if not self._leaves:
            return []
        nothing = Span(0, 0, 0)
        self._look(session, nothing, [])  # what fails here is no rule's fault
        try:
            self._look(session, nothing, self._rules)
            return []
        except psycopg.DatabaseError as error:
            if _fatal(error):
                raise
        aside: list[NotLookedAt] = []
        for rule in list(self._rules):
            try:
                self._look(session, nothing, [rule])
            except psycopg.DatabaseError as error:
                if _fatal(error):
                    raise
                if is_row_error(error):  # constants that raise: every row does
                    continue
                self._rules.remove(rule)
                said = error.diag.message_primary or type(error).__name__
                aside.append(NotLookedAt(rule.kind, rule.name, said))
        return aside

    def run(self, session: Connection, workers: int) -> None:
        """Look at every row. Raises Interrupted, and whatever the server fails with."""
        self._measure(session)
        self._control.crew.run_all([partial(self._work, number) for number in range(workers)])

    def _measure(self, session: Connection) -> None:
        rows = session.execute(
            "SELECT coalesce(pg_relation_size(oid), 0) / size, size"
            " FROM unnest(%s::oid[]) WITH ORDINALITY AS t (oid, number),"
            " LATERAL (SELECT current_setting('block_size')::bigint) AS s (size) ORDER BY number",
            ([leaf.oid for leaf in self._leaves],),
        ).fetchall()
        for number, (blocks, size) in enumerate(rows):
            self.slots = 1 << (size // 24).bit_length()  # a tuple's header has 23 bytes
            self.blocks += blocks
            if blocks:
                self._todo.append(Span(number, 0, blocks * self.slots))

    def _work(self, number: int) -> None:
        session: Connection | None = None
        try:
            while (span := self._take()) is not None:
                self._control.checkpoint(throttle=True)
                session = session or read_only(self._dsn, self._job, f"check {number + 1}")
                began = time.monotonic()
                self._judge(session, span)
                self._done(span, time.monotonic() - began)
        except BaseException as error:
            self._control.crew.fail(error)  # what one worker cannot do stops the others too
            raise
        finally:
            if session is not None:
                session.close()

    def _take(self) -> Span | None:
        with self._lock:
            if not self._todo:
                return None
            first = self._todo.popleft()
            size = max(1, int(self._blocks)) * self.slots
            if first.end - first.first <= size:
                return first
            self._todo.appendleft(replace(first, first=first.first + size))
            return replace(first, end=first.first + size)

    def _done(self, span: Span, spent: float) -> None:
        blocks = (span.end - span.first) // self.slots
        ideal = blocks * self._target / max(spent, 0.001)
        with self._lock:
            self.blocks_done += blocks
            self._blocks = min(max(ideal, self._blocks / 2, 1), self._blocks * 2, _LARGEST)

    def _judge(self, session: Connection, span: Span) -> None:
        """Count in a range; where a row raises an error, halve down to it."""
        if self._count(session, span, self._rules):
            return
        if self._raised >= RAISING:
            self.complete = False
            return
        if span.end - span.first == 1:
            self._judge_row(session, span)
            return
        middle = (span.first + span.end) // 2
        if span.end - span.first > self.slots:
            middle -= middle % self.slots
        self._judge(session, replace(span, end=middle))
        self._judge(session, replace(span, first=middle))

    def _judge_row(self, session: Connection, span: Span) -> None:
        """Find out which of its demands one row meets, which it breaks, and which raise an error.

        What a value that cannot be made would lead to is not asked.
        """
        with self._lock:
            self._raised += 1
        rules = [rule for rule in self._rules if rule.kind != "value"]
        values = [rule for rule in self._rules if rule.kind == "value"]
        plain = [rule for rule in values if not self._row.generated(rule.columns or ())]
        bad = {rule.name for rule in plain if not self._alone(session, span, rule)}
        if bad:
            rules = [
                rule
                for rule in rules
                if rule.columns is not None
                and bad.isdisjoint(rule.columns)
                and not self._row.generated(rule.columns)
            ]
        else:
            for rule in values:
                if rule not in plain and not self._alone(session, span, rule):
                    rules = [other for other in rules if rule.name not in (other.columns or ())]
        if not self._count(session, span, rules):
            self._tally.looked_at(1)
            for rule in rules:
                if self._alone(session, span, rule):
                    self._count(session, span, [rule], again=True)

    def _alone(self, session: Connection, span: Span, rule: Rule) -> bool:
        """Whether the row can be asked about ``rule``; counted where that raises an error."""
        error = self._ask(session, span, [rule])
        if not isinstance(error, psycopg.Error):
            return True
        its_key = sql.SQL("SELECT {} FROM {}").format(self._row.key, self._at(span))
        keys = [tuple(key) for (key,) in self._all(session, its_key)]
        at = (span.leaf, span.first)
        self._tally.refuse(rule.kind, rule.name, 1, keys, at, reason(error))
        return False

    def _count(
        self, session: Connection, span: Span, rules: Sequence[Rule], *, again: bool = False
    ) -> bool:
        """Count the rows that break ``rules``; False where one raises an error instead."""
        found = self._ask(session, span, rules)
        if isinstance(found, psycopg.Error):
            return False
        rows, _, *counts = found
        self._tally.looked_at(0 if again else rows)
        broken = [rule for rule in rules if not rule.evaluated]
        for rule, many, keys in zip(broken, counts[::2], counts[1::2], strict=True):
            if many:
                shown = [tuple(key) for key in keys]
                self._tally.refuse(rule.kind, rule.name, many, shown, (span.leaf, span.first))
        return True

    def _ask(
        self, session: Connection, span: Span, rules: Sequence[Rule]
    ) -> tuple[Any, ...] | psycopg.Error:
        try:
            return self._look(session, span, rules)
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            return error

    def _look(self, session: Connection, span: Span, rules: Sequence[Rule]) -> tuple[Any, ...]:
        """Rows, and for each rule that can be broken how many break it, with the first keys."""
        inner: list[sql.Composable] = [sql.SQL("count(*) AS n")]
        outer: list[sql.Composable] = [sql.SQL("n")]
        evaluated: list[sql.Composable] = [
            sql.SQL("count({})").format(rule.broken) for rule in rules if rule.evaluated
        ]
        inner.append(
            sql.SQL("{} AS evaluated").format(sql.SQL(" + ").join(evaluated or [sql.SQL("0")]))
        )
        outer.append(sql.SQL("evaluated"))
        for number, rule in enumerate(one for one in rules if not one.evaluated):
            keys = sql.Identifier(f"keys {number}")
            inner.append(
                sql.SQL("array_agg({}) FILTER (WHERE ({}) AND {}) AS {}").format(
                    self._row.key,
                    rule.broken,
                    sql.SQL("true") if rule.kind == "length" else self._row.sound(rule.columns),
                    keys,
                )
            )
            outer.append(sql.SQL("coalesce(array_length({}, 1), 0)").format(keys))
            outer.append(sql.SQL("({})[1:{}]").format(keys, sql.Literal(SHOWN)))
        statement = sql.SQL("SELECT {} FROM (SELECT {} FROM {}) AS counted").format(
            sql.SQL(", ").join(outer), sql.SQL(", ").join(inner), self._at(span)
        )
        (found,) = self._all(session, statement)
        return found

    def _all(self, session: Connection, statement: sql.Composed) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []

        def run() -> None:
            found[:] = session.execute(statement, prepare=False).fetchall()

        self._control.long_statement(session, run)
        return found

    def _at(self, span: Span) -> sql.Composed:
        leaf: Relation = self._leaves[span.leaf]
        return self._row.within(leaf, self._tid(span.first), self._tid(span.end))

    def _tid(self, slot: int) -> str:
        return f"({slot // self.slots},{slot % self.slots})"


def _fatal(error: psycopg.Error) -> bool:
    """Whether the trouble is with the server and not with what was asked."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "40", "53", "55", "57"))
