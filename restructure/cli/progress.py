"""A running job on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from restructure.cli import words
from restructure.cli.render import Output
from restructure.model.phase import Phase
from restructure.model.progress import Progress as JobProgress

LINE_EVERY = 5.0
_IDLE_LINE_EVERY = 60.0
"""Seconds between two lines that say the same."""

_RATE_OVER = 10.0
"""Seconds over which the rate of the copy is taken."""

_QUIET = ("entered",)


class View:
    """``with`` it: a bar on a terminal, None elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar = Bar(output) if output.animated else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class JobView(View):
    """Shows the events and the progress of one job. Its methods may be called from any thread."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._lock = threading.Lock()
        self._rows: deque[tuple[float, int]] = deque()
        self._last_line = ("", 0.0)

    def event(self, phase: str, name: str, detail: dict[str, Any]) -> None:
        """A Listener of engine/work.py: print one journal entry."""
        urgent = name in (
            "warning",
            "cutover not yet",
            "cutover refused",
            "verify failed",
            "revert not yet",
            "no way back",
            "connection lost, trying again",
            "terminated",
        )
        sentence = words.event(name, phase, detail)
        text = f"{words.clock()}  {phase:<9} {sentence}"
        with self._lock:
            if self._bar is not None and name in _QUIET:
                self._bar.show(phase, words.meaning(phase), None)
            if urgent:
                self._output.warn(text)
            else:
                self._output.note(text)

    def progress(self, phase: Phase, progress: JobProgress) -> None:
        """A ProgressListener of engine/watch.py: move the bar, or print a line now and then."""
        with self._lock:
            text = words.state_of(phase, progress, self._rate(phase, progress.rows_copied))
            if self._bar is not None:
                self._bar.show(phase, text, words.share(phase, progress))
                return
            before, at = self._last_line
            now = time.monotonic()
            if text and now - at >= (_IDLE_LINE_EVERY if text == before else LINE_EVERY):
                self._last_line = (text, now)
                self._output.note(f"{words.clock()}  {phase:<9} {text}")

    def _rate(self, phase: Phase, rows: int) -> float | None:
        if phase is not Phase.COPY:
            self._rows.clear()
            return None
        now = time.monotonic()
        self._rows.append((now, rows))
        while now - self._rows[0][0] > _RATE_OVER:
            self._rows.popleft()
        began, rows_then = self._rows[0]
        return (
            (rows - rows_then) / (now - began) if now - began >= 1 and rows >= rows_then else None
        )


class Bar:
    """One bar below the printed lines."""

    def __init__(self, output: Output) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", table_column=Column(ratio=1), markup=False),
            console=output.stderr,
            transient=True,
            expand=True,
        )
        self._task: TaskID | None = None

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, phase: str, text: str, share: float | None) -> None:
        if self._task is None:
            self._task = self._progress.add_task(phase, total=None, text="")
        total = None if share is None else 1.0
        self._progress.update(
            self._task, description=phase, text=text, total=total, completed=share or 0.0
        )
