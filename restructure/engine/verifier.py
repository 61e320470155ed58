"""The verifier: reads ranges of keys on both sides, and suspects the keys whose rows differ.

It judges nobody: a difference may be a change that is still under way. See engine/judge.py.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

import psycopg

from restructure.catalog import verification
from restructure.catalog.suspects import Suspects
from restructure.catalog.verification import Stretch
from restructure.engine.comparison import Comparison
from restructure.engine.control import Control
from restructure.engine.refusal import is_row_error, reason
from restructure.errors import NotNow
from restructure.model.failpoint import failpoint
from restructure.model.names import Names
from restructure.model.progress import Progress
from restructure.postgres.connect import Connection
from restructure.postgres.planner import read_by_index

MOST_SUSPECTS = 10_000
"""Keys noted of one range. More than this is no list to judge one by one: the range is read again when
what is under way has arrived, and if it still differs so much, these stand for all of them."""

_FIRST_UNITS = 8
_LARGEST_JUMP = 4
_SLOWED = 4.0
"""While slowed down, a worker rests this many times as long as it works."""

_REFUSED_FOR = 60.0
"""Seconds to wait until a row that the transform fails on is in quarantine."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What one comparison found: ``wrong`` keys differ."""

    at: datetime
    rows: int
    checksum: Decimal
    wrong: int


def sample(units: int, share: float, seed: int) -> list[Stretch]:
    """A random choice of units, at least one; ``share`` between 0 and 1."""
    count = max(1, round(units * share))
    chosen = sorted(random.Random(seed).sample(range(units), count))
    return [Stretch(unit, unit + 1) for unit in chosen]


class Verifier:
    """Compares stretches of the ``units`` that the bounds make, with several workers.

    ``target`` is how long one comparison should take, in seconds. ``overflowed`` are the stretches
    of which more keys differed than are noted.
    """

    def __init__(
        self,
        comparison: Comparison,
        suspects: Suspects,
        connect: Callable[[str], Connection],
        *,
        job: int,
        names: Names,
        units: int,
        target: float,
        control: Control,
        progress: Progress,
    ) -> None:
        self.overflowed: list[Stretch] = []
        self._comparison = comparison
        self._suspects = suspects
        self._connect = connect
        self._job = job
        self._names = names
        self._units = units
        self._target = target
        self._control = control
        self._progress = progress
        self._size = float(_FIRST_UNITS)
        self._todo: deque[Stretch] = deque()
        self._lock = threading.Lock()
        self._busy = 0
        self._began = 0.0
        self._wanted = 0
        self._done = 0

    @property
    def busy(self) -> bool:
        """Whether a worker is still at it."""
        return self._busy > 0

    def give_up(self) -> None:
        """Let the workers end with what they are at."""
        with self._lock:
            self._todo.clear()

    def errands(
        self, stretches: Iterable[Stretch], workers: int, *, insist: bool = False
    ) -> list[Callable[[], None]]:
        """What each worker is to do. ``insist``: note keys even of a range where too many differ."""
        self._todo = deque(stretches)
        self.overflowed = []
        self._busy = workers
        self._began = time.monotonic()
        self._wanted = sum(stretch.units for stretch in self._todo)
        self._done = 0
        return [partial(self._work, number, insist) for number in range(workers)]

    def session(self, role: str) -> Connection:
        """A session that reads by indexes, in their order where both sides have the same."""
        session = self._connect(role)
        read_by_index(session, in_order=self._comparison.ordered)
        # what a crash forgets is read again
        session.execute("SET synchronous_commit = off")
        return session

    def compare(self, session: Connection, stretch: Stretch, *, insist: bool = False) -> None:
        """Compare one stretch; note its suspects, and what was found.

        Raises NotNow where a row of the source is one that the transform fails on, and does not come
        into quarantine.
        """
        verification.start(session, self._job, self._names, stretch)
        found: Compared | None = None

        def attempt() -> None:
            nonlocal found
            with session.transaction():
                self._suspects.forget_range(session, stretch.first)
                found = self._read(session, stretch, insist=insist)
                whole = insist or found.wrong <= MOST_SUSPECTS
                verification.compared(
                    session,
                    self._job,
                    self._names,
                    stretch,
                    rows=found.rows,
                    checksum=found.checksum,
                    at=found.at if whole else None,
                    equal=not found.wrong,
                )

        self._patiently(session, attempt)
        assert found is not None
        with self._lock:
            self._progress.verified_rows += found.rows
            if found.wrong > MOST_SUSPECTS:
                self.overflowed.append(stretch)

    def _work(self, number: int, insist: bool) -> None:
        session: Connection | None = None
        try:
            while (stretch := self._take()) is not None:
                self._control.checkpoint(throttle=True)
                session = session or self.session(f"verify {number + 1}")
                began = time.monotonic()
                self.compare(session, stretch, insist=insist)
                spent = time.monotonic() - began
                self._advance(stretch.units, spent)
                failpoint("verify.range")
                if self._control.slowed:
                    self._control.wait(_SLOWED * spent)
        except BaseException:
            self.give_up()  # what one worker cannot do stops the others too
            raise
        finally:
            with self._lock:
                self._busy -= 1
            if session is not None:
                session.close()

    def _take(self) -> Stretch | None:
        with self._lock:
            if not self._todo:
                return None
            first = self._todo.popleft()
            size = max(1, int(self._size))
            if first.units <= size:
                return first
            self._todo.appendleft(Stretch(first.first + size, first.past))
            return Stretch(first.first, first.first + size)

    def _advance(self, units: int, spent: float) -> None:
        """Count, predict, and aim at the target time."""
        ideal = units * self._target / max(spent, 0.001)
        with self._lock:
            self._size = min(max(ideal, self._size / 2, 1.0), self._size * _LARGEST_JUMP)
            self._done += units
            share = self._done / self._wanted
            self._progress.verified_share = share
            self._progress.verify_eta_seconds = (
                (time.monotonic() - self._began) * (1 - share) / share
            )

    def _read(self, session: Connection, stretch: Stretch, *, insist: bool) -> Compared:
        row = session.execute(self._comparison.any_refused).fetchone()
        assert row is not None
        statement = self._comparison.compare_range(
            low=stretch.first > 0, high=stretch.past < self._units, refused=row[0]
        )
        words = {
            "first": stretch.first,
            "past": stretch.past,
            "most": MOST_SUSPECTS,
            "all": insist,
        }
        found = session.execute(statement, words).fetchone()
        assert found is not None
        return Compared(*found)

    def _patiently(self, session: Connection, attempt: Callable[[], None]) -> None:
        """A row that the new shape refuses makes a comparison fail until its key is in quarantine."""
        deadline = time.monotonic() + _REFUSED_FOR
        while True:
            try:
                self._control.long_statement(session, attempt)
                return
            except psycopg.Error as error:
                if not is_row_error(error):
                    raise
                if time.monotonic() > deadline:
                    raise NotNow(
                        f"the transform fails on a row, which is not in quarantine: {reason(error)}"
                    ) from error
                self._control.wait(0.1)
