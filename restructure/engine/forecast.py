"""When will nothing be pending any more: from the rates of both sides."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

_WINDOW = 30.0
"""Seconds of history that the rates are taken from."""

_ENOUGH = 5.0
"""Seconds of history below which no forecast is made."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Rates in keys per second; ``seconds`` to zero, None where zero never comes."""

    arriving: float
    applied: float
    seconds: float | None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"never at this rate: {self.arriving:,.0f} keys/s arrive, {self.applied:,.0f} keys/s are applied"
        return f"zero at {time.strftime('%H:%M:%S', time.localtime(time.time() + self.seconds))}"


class Forecaster:
    """Collects counters; answers when pending reaches zero."""

    def __init__(self, window: float = _WINDOW, enough: float = _ENOUGH) -> None:
        self._window = window
        self._enough = enough
        self._samples: deque[tuple[float, int, int]] = deque()

    def add(self, now: float, captured: int, applied: int) -> None:
        """Note both counters (they only grow) at ``now`` (monotonic seconds)."""
        self._samples.append((now, captured, applied))
        while now - self._samples[0][0] > self._window:
            self._samples.popleft()

    def forecast(self, pending: int) -> Forecast | None:
        """None while there is too little history."""
        if not self._samples:
            return None
        (began, captured, applied), (now, captured_now, applied_now) = (
            self._samples[0],
            self._samples[-1],
        )
        span = now - began
        if span < self._enough:
            return None
        arriving = (captured_now - captured) / span
        going = (applied_now - applied) / span
        if not pending:
            return Forecast(arriving, going, 0.0)
        gain = going - arriving
        return Forecast(arriving, going, pending / gain if gain > 0 else None)
