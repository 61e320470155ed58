"""How many rows each demand refuses, and the first of their keys."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from restructure.engine.trial.rule import Kind

SHOWN = 10
"""Keys that are kept of each demand."""

Place = tuple[int, int]
"""Where a row lies: the number of its leaf, and of its slot there."""

Key = tuple[str, ...]


@dataclass(slots=True)
class Refused:
    """The rows that one demand refuses. ``reason`` names an error, without a value.

    ``keys`` are the first of them in the order in which they lie, each column as text.
    """

    kind: Kind
    name: str
    reason: str = ""
    rows: int = 0
    keys: list[Key] = field(default_factory=list)


class Tally:
    """Counts. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self.rows = 0
        self._found: dict[tuple[Kind, str, str], Refused] = {}
        self._places: dict[tuple[Kind, str, str], list[tuple[Place, Key]]] = {}
        self._lock = threading.Lock()

    def looked_at(self, rows: int) -> None:
        with self._lock:
            self.rows += rows

    def refuse(
        self, kind: Kind, name: str, rows: int, keys: Sequence[Key], at: Place, reason: str = ""
    ) -> None:
        """Add ``rows`` that lie from ``at`` on; ``keys`` are the first of them."""
        with self._lock:
            which = (kind, name, reason)
            refused = self._found.setdefault(which, Refused(*which))
            refused.rows += rows
            places = self._places.setdefault(which, [])
            places += [(at, key) for key in keys[:SHOWN]]
            places.sort(key=lambda place: place[0])
            del places[SHOWN:]
            refused.keys = [key for _, key in places]

    @property
    def refused(self) -> list[Refused]:
        """Every demand that refuses something, the order of kinds and names."""
        with self._lock:
            return [self._found[which] for which in sorted(self._found)]

    @property
    def refusals(self) -> int:
        """Refused rows so far; one that breaks two demands counts twice."""
        with self._lock:
            return sum(one.rows for one in self._found.values())
