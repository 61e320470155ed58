"""Signals: the first one stops a job safely, a second Ctrl-C ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from restructure.errors import Interrupted

_HANDLED = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def stopping(stop: Callable[[str], None]) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM call ``stop`` with a reason.

    The handler only writes a byte; a thread calls ``stop``. A handler runs between any two
    instructions of the main thread, which may hold the very lock that ``stop`` needs. Outside the
    main thread nothing is installed, for Python allows it nowhere else.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    arrived: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in arrived:
            _leave()
        arrived.append(number)
        os.write(writing, bytes([number]))

    def wait() -> None:
        while received := os.read(reading, 1):
            stop(f"stopped by {signal.Signals(received[0]).name}")
        os.close(reading)

    before = {number: signal.signal(number, handle) for number in _HANDLED}
    threading.Thread(target=wait, name="signals", daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end a command as Ctrl-C does, so that sessions are closed on the way out."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted("stopped by SIGTERM")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)


def _leave() -> None:
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR.encode())
    os.write(2, b"\nLeft at once. Nothing is lost: run the same command again to go on.\n")
    os._exit(Interrupted.exit_code)
