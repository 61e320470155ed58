"""What may hold or stop the work: signals, pauses, the throttle, a failed thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
from psycopg import errors as pg

from restructure.engine.crew import Crew
from restructure.errors import Interrupted
from restructure.postgres.connect import Connection

_TICK = 0.1
"""Seconds between two looks at the flags while held: pause and stop act well within a second."""


class Control:
    """Flags that every worker looks at between two pieces of work.

    ``throttled`` holds the reason why the copy waits now, ``slowed`` why it goes slowly, or None.
    """

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        crew.on_failure = self._cancel_until_idle
        self.paused = threading.Event()
        self.throttled: str | None = None
        self.slowed: str | None = None
        self._stop_reason: Interrupted | None = None
        self._interrupt: Callable[[], None] | None = None
        self._running: dict[int, Connection] = {}
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()

    def stop(self, reason: str) -> None:
        """Ask everything to stop; statements under way are cancelled."""
        self._stop_reason = self._stop_reason or Interrupted(
            reason, hint="Run the same command again to go on where it stopped."
        )
        self._cancel_running()

    def pause(self) -> None:
        """Hold the work; long statements are cancelled and begin again after the pause."""
        self.paused.set()
        self._cancel_running()

    def resume(self) -> None:
        self.paused.clear()

    def enforce(self) -> None:
        """Cancel again what runs although it should not: a cancel that came a moment before its
        statement did nothing. To be called every now and then."""
        if self.paused.is_set() or self.stopped:
            self._cancel_running()

    @property
    def stopped(self) -> bool:
        return self._stop_reason is not None or self.crew.stopping.is_set()

    def check(self) -> None:
        """Raise Interrupted if asked to stop, or the error of a thread that failed."""
        self.crew.check()
        if self._stop_reason is not None:
            raise self._stop_reason
        if self.crew.stopping.is_set():
            raise Interrupted("stopped")

    def checkpoint(self, *, throttle: bool = False) -> None:
        """Between two pieces of work: wait while paused (or throttled), raise if stopped."""
        self.check()
        while self.paused.is_set() or (throttle and self.throttled):
            time.sleep(_TICK)
            self.check()

    def wait(self, seconds: float) -> None:
        """Sleep, but not through a request to stop."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _TICK))
        self.check()

    def long_statement(self, connection: Connection, run: Callable[[], None]) -> None:
        """Run a statement that may take hours so that pause and stop still act at once.

        It is cancelled on a pause and run again after it: give it work that rolls back
        whole and may be repeated.
        """
        while True:
            self.checkpoint()
            try:
                with self._cancellable(connection) as allowed:
                    if allowed:
                        run()
                        return
            except pg.QueryCanceled:
                with self._lock:
                    if id(connection) not in self._cancelled:
                        raise
                    self._cancelled.discard(id(connection))

    @contextlib.contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While inside, a request to stop calls ``interrupt``, again and again until it acts.

        Interrupted is raised as the reason why everything stops.
        """
        self._interrupt = interrupt
        try:
            self.check()
            yield
        except Interrupted:
            self.check()
            raise
        finally:
            self._interrupt = None

    @contextlib.contextmanager
    def _cancellable(self, connection: Connection) -> Iterator[bool]:
        """Whether ``connection`` may run a statement now; from here on a pause cancels it."""
        with self._lock:
            allowed = not (self.paused.is_set() or self.stopped)
            if allowed:
                self._running[id(connection)] = connection
        try:
            yield allowed
        finally:
            with self._lock:
                self._running.pop(id(connection), None)

    def _cancel_running(self) -> bool:
        """Cancel every statement under way; whether there was one."""
        with self._lock:
            running = list(self._running.values())
            self._cancelled |= self._running.keys()
        interrupt = self._interrupt
        if interrupt is not None and self.stopped:
            interrupt()
        for connection in running:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=5)
        return bool(running)

    def _cancel_until_idle(self) -> None:
        """When all is to end: the watch, which would cancel again, has ended or ends too."""
        while self._cancel_running():
            time.sleep(_TICK)
