"""Threads: started and joined here and nowhere else. The first failure stops them all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

from restructure.errors import Interrupted

_SWITCH = 0.001


class Crew:
    """The threads of one job.

    Standing threads (:meth:`start`) run until :meth:`dismiss`; errands (:meth:`run_all`) run to
    their end while the caller waits. Whichever fails first sets :attr:`stopping`; its error
    is what everybody sees.
    """

    def __init__(self) -> None:
        # a thread that hears from the server takes over within a millisecond, not within five: the last
        # ones of them do so under the swap's lock
        sys.setswitchinterval(_SWITCH)
        self.stopping = threading.Event()
        self._standing: list[threading.Thread] = []
        self.on_failure: Callable[[], None] = lambda: None
        self.failure: BaseException | None = None
        self._lock = threading.Lock()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run ``work`` in a standing thread; it must return soon after ``stopping`` is set."""
        thread = threading.Thread(target=self._guarded(work), name=name, daemon=True)
        self._standing.append(thread)
        thread.start()

    def run_all(self, errands: Sequence[Callable[[], None]]) -> None:
        """Run errands side by side, the last one in the calling thread; raise the first failure."""
        failures: list[BaseException] = []

        def kept(errand: Callable[[], None]) -> None:
            try:
                errand()
            except BaseException as error:  # raised again below, in the caller
                failures.append(error)

        threads = [
            threading.Thread(target=kept, args=(errand,), name=f"errand {number}", daemon=True)
            for number, errand in enumerate(errands[:-1], 1)
        ]
        for thread in threads:
            thread.start()
        kept(errands[-1])
        for thread in threads:
            thread.join()
        real = [error for error in failures if not isinstance(error, Interrupted)]
        if failures:
            raise (real or failures)[0]

    def check(self) -> None:
        """Raise what made a standing thread fail, if one did."""
        if self.failure is not None:
            raise self.failure

    def fail(self, error: BaseException) -> None:
        """Make ``error`` what everybody sees, unless something failed before it."""
        with self._lock:
            if self.failure is not None or self.stopping.is_set():
                return
            self.failure = error
        self.stopping.set()
        self.on_failure()

    def dismiss(self) -> None:
        """Stop and join the standing threads. Safe to call twice."""
        self.stopping.set()
        for thread in self._standing:
            if thread is not threading.current_thread():
                thread.join()
        self._standing.clear()

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # kept for check()
                self.fail(error)

        return run
