"""Capture: the stream's keys made durable in the spool, then confirmed to the server.

Two threads. The reader owns the stream and keeps it alive whatever else is slow; the storer
writes what the reader has found. A bounded queue between them bounds memory: when it is
full the reader stops reading, the server keeps the WAL, and the WAL guard watches that.
"""

from __future__ import annotations

import queue
import threading
import time

from restructure.catalog import spool as catalog
from restructure.catalog.spool import Spool
from restructure.engine.control import Control
from restructure.errors import NotNow
from restructure.model.change import Batch
from restructure.model.relation import Watched
from restructure.ports import Stream
from restructure.postgres.connect import Connection, connect

_BATCH_KEYS = 20_000
_QUEUED_BATCHES = 8
_POLL = 0.25
_LOOK_UP_EVERY = 0.001
"""Seconds after which a storer that waits for company notices that somebody waits for it."""


LINGER = 0.05
"""Seconds: some twenty small transactions of ours a second at most, and nobody waits for one."""


class Capture:
    """Feeds the spool of one job from its stream.

    ``linger`` is how long the storer waits for more before it writes a small batch, in
    seconds: longer costs latency, shorter costs transactions.
    """

    def __init__(
        self, stream: Stream, spool: Spool, dsn: str, job: int, job_name: str, control: Control
    ) -> None:
        self.stream = stream
        self.spool = spool
        self.linger = LINGER
        self.stored_keys = 0
        self.position: str | None = None
        self._dsn = dsn
        self._job = job
        self._job_name = job_name
        self._control = control
        self._queue: queue.Queue[Batch] = queue.Queue(_QUEUED_BATCHES)
        self._moved = threading.Condition()
        self._urgent = threading.Event()
        self._ending = threading.Event()
        self._closed = threading.Event()

    def start(self, watched: Watched, position: str) -> None:
        """Begin to read after ``position``. Raises StreamGap where that is not possible."""
        self.position = position
        self.stream.open(watched, position)
        self._control.crew.start("reader", self._read)
        self._control.crew.start("storer", self._store)

    def stop(self) -> None:
        """Stop reading and wait until the stream is closed. What was stored stays."""
        self._ending.set()
        while not self._closed.wait(0.1):
            self._control.check()

    def _stopping(self) -> bool:
        return self._ending.is_set() or self._control.crew.stopping.is_set()

    def pass_fence(self, timeout: float | None = None) -> float:
        """Wait until all that is committed now is in the spool; return the seconds it took.

        Raises NotNow at the timeout.
        """
        began = time.monotonic()
        fence = self.stream.fence()
        self.wait_for(fence, None if timeout is None else timeout - (time.monotonic() - began))
        return time.monotonic() - began

    def wait_for(self, fence: str, timeout: float | None = None) -> None:
        """Wait until the spool covers ``fence``. Raises NotNow at the timeout (seconds)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._urgent.set()
        try:
            with self._moved:
                while self.position is None or not self.stream.reached(self.position, fence):
                    self._control.check()
                    left = 0.1 if deadline is None else min(0.1, deadline - time.monotonic())
                    if left <= 0:
                        raise NotNow(
                            f"the stream did not arrive at a fence within {timeout:.3g} s",
                            hint="A large transaction is being decoded, or the server is busy. Try again later.",
                        )
                    self._moved.wait(left)
        finally:
            self._urgent.clear()

    def _read(self) -> None:
        waiting: Batch | None = None
        try:
            while not self._stopping():
                if waiting is None:
                    waiting = self.stream.poll(_POLL, _BATCH_KEYS)
                if waiting is not None:
                    try:
                        self._queue.put(waiting, timeout=_POLL)
                        waiting = None
                    except queue.Full:
                        self.stream.keepalive()
        finally:
            self.stream.close()
            self._closed.set()

    def _store(self) -> None:
        with connect(self._dsn, job=self._job_name, role="spool") as connection:
            while not self._stopping():
                if batches := self._gather():
                    self._write(connection, batches)

    def _gather(self) -> list[Batch]:
        """Whatever is queued, after a short wait for company unless somebody waits for a fence."""
        try:
            batches = [self._queue.get(timeout=_POLL)]
        except queue.Empty:
            return []
        began = time.monotonic()
        keys = batches[0].key_count
        while keys < _BATCH_KEYS:
            left = 0.0 if self._urgent.is_set() else began + self.linger - time.monotonic()
            try:
                batch = (
                    self._queue.get(timeout=min(left, _LOOK_UP_EVERY))
                    if left > 0
                    else self._queue.get_nowait()
                )
            except queue.Empty:
                if left <= 0:
                    break
                continue
            batches.append(batch)
            keys += batch.key_count
        return batches

    def _write(self, connection: Connection, batches: list[Batch]) -> None:
        """Keys and position in one transaction that is flushed (synchronous_commit = local); then confirm.

        A confirmed position that were not durable would let a crash lose what it covers. Where
        somebody waits for a fence and nothing came with it, there is nothing to make
        durable: a later batch stores the position.
        """
        position = batches[-1].position
        rows = 0
        if not (self._urgent.is_set() and all(batch.empty for batch in batches)):
            with connection.transaction():
                rows = self.spool.append(connection, batches)
                catalog.store_position(connection, self._job, self.spool.direction, position)
            self.stream.confirm(position)
        with self._moved:
            self.position = position
            self.stored_keys += rows
            self._moved.notify_all()
