"""The tool as a user runs it: a process of its own, its memory watched, its journal read."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from benchmarks import orders
from benchmarks.sampling import WaitSampler

_ROOT = Path(__file__).resolve().parents[1]
_PHASES = ("setup", "copy", "index", "catchup", "ready", "cutover", "live")


class ToolFailed(Exception):
    """The tool ended otherwise than it should; the message ends with its stderr."""


class Tool:
    """``python -m restructure run``: started on entering, ended on leaving."""

    def __init__(self, dsn: str, *words: str, waits: bool = False) -> None:
        self.dsn = dsn
        self._words = words
        self._folder = tempfile.TemporaryDirectory()
        self._peak = 0.0
        self._waits = waits
        self._sampler: WaitSampler | None = None

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        (folder / "plan.yaml").write_text(orders.PLAN)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "restructure", "run", folder / "plan.yaml", *self._words],
                cwd=_ROOT,
                env={**os.environ, "RESTRUCTURE_DSN": self.dsn},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        if self._waits:
            self._sampler = WaitSampler(self.dsn, self._process.pid)
            self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._folder.cleanup()

    @property
    def peak_megabytes(self) -> float:
        """The largest resident set so far (VmHWM)."""
        return self._peak

    @property
    def waits(self) -> dict[str, Any]:
        """What our sessions were seen doing, where that was asked for."""
        return self._sampler.seen if self._sampler is not None else {}

    def finish(self, timeout: float = 1800.0) -> None:
        """Wait until it is done. Raises ToolFailed where it does not end well."""
        code = self._process.wait(timeout)
        self._watcher.join()
        if self._sampler is not None:
            self._sampler.stop()
        if code != 0:
            raise ToolFailed(f"exit code {code}: {self._last_words()}")

    def until(self, condition: Callable[[], bool], timeout: float = 1800.0) -> None:
        """Wait while it runs. Raises ToolFailed if it ends before, or at the timeout."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ToolFailed(f"waited in vain: {self._last_words()}")
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End it as an operator would, and wait until it has."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        self._watcher.join()
        if self._sampler is not None:
            self._sampler.stop()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while self.running:
            try:
                for line in status.read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self._peak = max(self._peak, int(line.split()[1]) / 1024)
            except OSError:
                return
            time.sleep(0.05)

    def _last_words(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").splitlines()[-8:])


@dataclass(frozen=True, slots=True)
class History:
    """What the journal of the job says. Times are the server's, in seconds since 1970."""

    entered: dict[str, float]
    swapped: float
    copied: float
    receipt: dict[str, Any]

    @property
    def setup_to_swap(self) -> float:
        return self.swapped - self.entered["setup"]

    @property
    def phases(self) -> dict[str, float]:
        """Seconds spent in each phase, first entry to first entry of the next; then the swap."""
        marks = [name for name in _PHASES if name in self.entered]
        return {
            name: round(self.entered[following] - self.entered[name], 3)
            for name, following in itertools.pairwise(marks)
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "setup_to_swap_s": round(self.setup_to_swap, 3),
            "phases_s": self.phases,
            "receipt": self.receipt,
        }


def read_history(dsn: str) -> History:
    """Read the journal of a job that has swapped."""
    with psycopg.connect(dsn) as session:
        entries: list[tuple[datetime, str, str]] = session.execute(
            "SELECT at, phase, event FROM restructure.journal ORDER BY id"
        ).fetchall()
        receipt = session.execute("SELECT receipt FROM restructure.job").fetchone()
    entered: dict[str, float] = {}
    events: dict[str, float] = {}
    for at, phase, event in entries:
        if event == "entered":
            entered.setdefault(phase, at.timestamp())
        else:
            events[event] = at.timestamp()
    assert receipt is not None
    return History(entered, events["swapped"], events["copied"], receipt[0])


def status(dsn: str) -> dict[str, Any]:
    """What ``restructure status`` says of the job."""
    answer = subprocess.run(
        [sys.executable, "-m", "restructure", "--output", "json", "status", orders.JOB],
        cwd=_ROOT,
        env={**os.environ, "RESTRUCTURE_DSN": dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    document = json.loads(answer.stdout)
    found: dict[str, Any] = document["jobs"][0]
    return found
