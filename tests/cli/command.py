"""The real command in a process of its own, as a person or a script runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.start import Command

PATIENCE = 90.0
ROOT = Path(__file__).resolve().parents[2]

_OURS = ("RESTRUCTURE_", "PG", "DATABASE_URL", "FORCE_COLOR", "NO_COLOR", "COLUMNS")


def environment(dsn: str | None = None, **more: str) -> dict[str, str]:
    """This process's environment without anything that would steer the command."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) or name.startswith("PG_BIN")
    }
    kept["PYTHONPATH"] = str(ROOT)
    if dsn is not None:
        kept["RESTRUCTURE_DSN"] = dsn
    return {**kept, **more}


def restructure(
    *words: str | Path, dsn: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, off a terminal and with nobody to answer."""
    command = start(*words, dsn=dsn, **more)
    try:
        code = command.wait(PATIENCE)
    finally:
        command.kill()
    return subprocess.CompletedProcess(words, code, command.stdout, command.stderr)


def start(*words: str | Path, dsn: str | None = None, **more: str) -> Command:
    """Start a command."""
    return Command([str(word) for word in words], environment(dsn, **more))


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON document that a command printed, and nothing else beside it."""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Running:
    """A command under way: ``with Running("run", plan, dsn=dsn) as tool``. Killed on leaving."""

    def __init__(self, *words: str | Path, dsn: str | None = None, **more: str) -> None:
        self.process = start(*words, dsn=dsn, **more)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.finish()

    @property
    def stdout(self) -> str:
        return self.process.stdout

    @property
    def stderr(self) -> str:
        return self.process.stderr

    def said(self, text: str) -> None:
        """Wait until stderr holds ``text``."""
        self.until(lambda: text in self.stderr, f"{text!r}")

    def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Wait for something that this command brings about. Fails when it ends before."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                if condition():
                    return
                raise AssertionError(f"ended without {what}:\n{self.stdout}\n{self.stderr}")
            assert time.monotonic() < deadline, f"no {what}:\n{self.stdout}\n{self.stderr}"
            time.sleep(0.02)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def finish(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(PATIENCE)
