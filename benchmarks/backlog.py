"""A backlog of changes: who has it applied first, we or PostgreSQL's own subscription."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import orders
from benchmarks.place import Place
from benchmarks.results import Goal, Line, Outcome, memory_line
from benchmarks.sizes import Sizes
from benchmarks.tool import Tool
from restructure.model.names import Names

_SLOT = "bench_native"
_PUBLICATION = "bench_native"
_POLL = 0.01

CHANGES = """
CREATE PROCEDURE change(changes int, per_transaction int, keys int) LANGUAGE plpgsql AS $$
DECLARE
    chosen int;
BEGIN
    FOR number IN 1..changes LOOP
        chosen := 2 + floor(random() * (keys - 1));
        UPDATE orders SET status = 'c' || number WHERE id = chosen;
        IF number % per_transaction = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $$
"""
"""Row 1 is left alone: the mark at the end of each backlog is made there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """``per_transaction`` and ``keys`` None: all. ``modes``: native streaming, the best counts."""

    name: str
    limit: float
    per_transaction: int | None = 100
    keys: int | None = None
    modes: tuple[str, ...] = ("off",)


KINDS = (
    Kind("100-row transactions", 2),
    Kind("one big transaction", 2, per_transaction=None, modes=("off", "on")),
    Kind("hot keys", 2, keys=20_000),
    Kind("single-row transactions", 1.5, per_transaction=1),
)


@dataclass(slots=True)
class Arena:
    """A job at ready that nobody attends, and a subscription that is disabled, at one position."""

    place: Place
    source: str
    target: str
    session: psycopg.Connection
    marks: int = 0

    def build_up(self, kind: Kind, changes: int) -> str:
        """Make a backlog; return the mark that its last change leaves in row 1."""
        keys = min(kind.keys or self.place.rows, self.place.rows)
        self.session.execute(
            "CALL change(%s, %s, %s)", (changes, kind.per_transaction or changes + 1, keys)
        )
        self.marks += 1
        mark = f"mark {self.marks}"
        self.session.execute("UPDATE orders SET status = %s WHERE id = 1", (mark,))
        return mark

    def ours(self, mark: str, waits: bool) -> tuple[float, Tool]:
        """Seconds from the stream's connection until the last change is in and nothing pending."""
        names = Names.of(orders.JOB)
        shadow = sql.Identifier(names.shadow_schema, orders.TABLE)
        spool = sql.Identifier("restructure", names.spool)
        applied = sql.SQL(
            "SELECT (SELECT status = {} FROM {} WHERE id = 1) AND NOT EXISTS (SELECT FROM {})"
        ).format(sql.Literal(mark), shadow, spool)
        with (
            psycopg.connect(self.source, autocommit=True) as look,
            Tool(self.source, "--then", "stay", waits=waits) as tool,
        ):
            tool.until(lambda: _true(look, applied))
            row = look.execute(
                "SELECT extract(epoch FROM clock_timestamp() - r.backend_start)::float8"
                " FROM pg_stat_replication r JOIN pg_replication_slots s ON s.active_pid = r.pid"
                " WHERE s.slot_name = %s",
                (names.slot,),
            ).fetchone()
            assert row is not None
            self._let_go_of_wal(names.slot)
        return float(row[0]), tool

    def native(self, mark: str, mode: str) -> float:
        """Seconds from ENABLE until the last change is in."""
        with psycopg.connect(self.target, autocommit=True) as look:
            look.execute(f"ALTER SUBSCRIPTION bench SET (streaming = {mode})".encode())
            began = time.monotonic()
            look.execute("ALTER SUBSCRIPTION bench ENABLE")
            _wait(
                lambda: _true(
                    look,
                    sql.SQL("SELECT status = {} FROM orders WHERE id = 1").format(
                        sql.Literal(mark)
                    ),
                )
            )
            took = time.monotonic() - began
            self._let_go_of_wal(_SLOT)
            look.execute("ALTER SUBSCRIPTION bench DISABLE")
            wait_until_free(look, _SLOT)
        return took

    def _let_go_of_wal(self, slot: str) -> None:
        """Wait until the slot's reader need not begin far back the next time.

        Decoding begins at restart_lsn, which moves only with records of the running
        transactions (a checkpoint writes one); a server in use writes one every 15 s.
        """
        now = self.session.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert now is not None
        recent = sql.SQL(
            "SELECT restart_lsn >= {}::pg_lsn FROM pg_replication_slots WHERE slot_name = {}"
        ).format(sql.Literal(now[0]), sql.Literal(slot))
        self.place.checkpoint()
        _wait(lambda: _true(self.session, recent))


def run(place: Place, sizes: Sizes) -> Outcome:
    """Each kind in several rounds; both sides consume the same changes, in turn first."""
    lines: list[Line] = []
    samples: dict[str, Any] = {}
    peaks: list[float] = []
    with _arena(place) as arena:
        for kind in KINDS:
            ours: list[float] = []
            native: dict[str, list[float]] = {mode: [] for mode in kind.modes}
            waits: list[dict[str, Any]] = []
            for number in range((sizes.rounds or 3) * len(kind.modes)):
                mode = kind.modes[number % len(kind.modes)]
                mark = arena.build_up(kind, sizes.changes)

                def we(mark: str = mark) -> None:
                    place.checkpoint()
                    seconds, tool = arena.ours(mark, sizes.waits)
                    ours.append(seconds)  # noqa: B023  # called before the loop goes on
                    peaks.append(tool.peak_megabytes)
                    waits.append(tool.waits)  # noqa: B023

                def they(mark: str = mark, mode: str = mode) -> None:
                    place.checkpoint()
                    native[mode].append(arena.native(mark, mode))  # noqa: B023

                turn = number // len(kind.modes)
                for side in (we, they) if turn % 2 == 0 else (they, we):
                    side()
            lines.append(_line(kind, sizes.changes, ours, native))
            samples[kind.name] = {"ours_s": ours, "native_s": native, "waits": waits}
    lines.append(memory_line("catch-up", peaks))
    samples |= {"changes": sizes.changes, "resident_mb": peaks}
    return Outcome("backlog", place.version, lines, samples)


def _line(kind: Kind, changes: int, ours: list[float], native: dict[str, list[float]]) -> Line:
    """Speeds in changes per second, against the best of the native modes."""
    best = min(native.values(), key=_median)
    return Line(
        f"catch-up: {kind.name}",
        "changes/s",
        changes / _median(ours),
        changes / _median(best),
        _median(best) / _median(ours),
        Goal("at least", kind.limit),
    )


@contextlib.contextmanager
def _arena(place: Place) -> Iterator[Arena]:
    with (
        place.copy("backlog_source") as source,
        place.copy("backlog_target") as target,
        psycopg.connect(source, autocommit=True) as session,
    ):
        session.execute(CHANGES)
        session.execute("SET synchronous_commit = off")
        with Tool(source) as tool:
            tool.finish()
        with subscribed(session, source, target):
            yield Arena(place, source, target, session)


@contextlib.contextmanager
def subscribed(session: psycopg.Connection, source: str, target: str) -> Iterator[None]:
    """A native subscription of ``target`` to the orders of ``source``, at the position of now, disabled."""
    # after a job is made, which refuses a table in other publications; publication before slot
    session.execute(f"CREATE PUBLICATION {_PUBLICATION} FOR TABLE orders".encode())
    session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (_SLOT,))
    with psycopg.connect(target, autocommit=True) as there:
        there.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION bench CONNECTION {} PUBLICATION {} WITH (enabled = false,"
                " create_slot = false, slot_name = {}, copy_data = false, binary = true)"
            ).format(sql.Literal(source), sql.Identifier(_PUBLICATION), sql.Identifier(_SLOT))
        )
        try:
            yield
        finally:
            there.execute("ALTER SUBSCRIPTION bench DISABLE")
            there.execute("ALTER SUBSCRIPTION bench SET (slot_name = NONE)")
            there.execute("DROP SUBSCRIPTION bench")


def wait_until_free(session: psycopg.Connection, slot: str) -> None:
    """A reader that was told to go needs a moment."""
    free = sql.SQL("SELECT NOT active FROM pg_replication_slots WHERE slot_name = {}")
    _wait(lambda: _true(session, free.format(sql.Literal(slot))))


def _true(session: psycopg.Connection, query: sql.Composed) -> bool:
    row = session.execute(query).fetchone()
    return bool(row and row[0])


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(_POLL)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
