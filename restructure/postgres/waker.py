"""Ending another thread's wait for a socket."""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress


class Waker:
    """A pipe: one thread waits for ``descriptor``, any other may wake it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._write, False)

    def wake(self) -> None:
        with self._lock, suppress(BlockingIOError):  # full: a wake-up is on its way already
            if not self._closed:
                os.write(self._write, b"!")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def wait(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        poll.poll(max(0.0, timeout) * 1000)
        self.clear()

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._write)
                os.close(self.descriptor)
