"""While ready lasts: ranges in which something has changed are compared again, gently."""

from __future__ import annotations

import contextlib
import threading
import time
from types import TracebackType

from restructure.catalog import verification
from restructure.engine.verifier import Verifier
from restructure.engine.work import Work
from restructure.errors import NotNow, Retryable, VerifyMismatch
from restructure.model.phase import Phase
from restructure.phases.verify import Verifying
from restructure.postgres.connect import Connection

REST = 9.0
"""Times as long as a comparison took: what is compared again takes a tenth of the time at most."""

AGAIN_AFTER = 60.0
"""Seconds before the same range is read again, however often it changes."""

_LOOK_EVERY = 1.0
_TICK = 0.1


class Reverifier:
    """``with Reverifier(...)``: a thread compares, and the main thread calls :meth:`judge` now and then.

    It compares nothing unless a verification of everything has passed.
    """

    def __init__(self, work: Work, verifying: Verifying) -> None:
        self._work = work
        self._verifying = verifying
        self._found = threading.Event()
        self._halted = threading.Event()
        self._ended = threading.Event()
        self._turn = threading.Lock()
        state = verifying.state()
        self._passed = (
            work.phase is Phase.READY
            and state is not None
            and state.passed
            and state.mode == "full"
            and verifying.suspects.there(work.state)
        )
        self._units = state.units if state is not None else 1

    def __enter__(self) -> Reverifier:
        if self._passed:
            self._work.crew.start("reverify", self._run)
        else:
            self._ended.set()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._halted.set()
        while not self._ended.wait(_TICK):
            pass  # at most for as long as one comparison takes; a stop cancels it
        if kind is None:
            self.judge()

    def judge(self) -> None:
        """Judge what was found since the last time. What is damage, the catalog and the journal tell."""
        if not self._found.is_set():
            return
        with self._turn:
            self._found.clear()
            try:
                self._verifying.settle()
            except NotNow:
                # their ranges count as not compared until they are compared again
                self._verifying.suspects.forget_unsure(self._work.state)
            with contextlib.suppress(VerifyMismatch):
                self._verifying.conclude()

    def _run(self) -> None:
        try:
            verifier = self._verifying.verifier(self._units)
            with verifier.session("reverify") as session:
                while not self._over():
                    self._rest(self._compare(session, verifier))
        finally:
            self._ended.set()

    def _over(self) -> bool:
        return self._halted.is_set() or self._work.control.stopped

    def _compare(self, session: Connection, verifier: Verifier) -> float:
        """Compare the range that waits for it longest; return for how long to rest."""
        control = self._work.control
        if control.paused.is_set() or control.throttled or control.slowed:
            return _LOOK_EVERY
        stretches = verification.changed(
            session, self._work.job.id, self._work.names, older_than=AGAIN_AFTER
        )
        if not stretches:
            return _LOOK_EVERY
        began = time.monotonic()
        try:
            with self._turn:
                verifier.compare(session, stretches[0])
        except NotNow as later:
            if isinstance(later, Retryable):
                raise
            return AGAIN_AFTER
        self._found.set()
        return max(REST * (time.monotonic() - began), _TICK)

    def _rest(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self._over():
            time.sleep(min(left, _TICK))
