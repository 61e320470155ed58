"""Where the time goes: what our sessions wait for, and what processor time each has used."""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import psycopg

_EVERY = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")

_SESSIONS = """
SELECT pid, application_name || CASE WHEN backend_type = 'parallel worker' THEN ' (parallel)' ELSE '' END,
       coalesce(wait_event_type || ':' || wait_event, 'CPU'),
       state = 'active' OR backend_type = 'parallel worker'
  FROM pg_stat_activity WHERE application_name LIKE 'restructure %'
"""


class WaitSampler:
    """Looks at the tool's sessions many times a second.

    Wait events are counted where a session is active ("CPU" where it waits for nothing). Seconds
    of processor time are exact, but for what a session used after it was last seen. It costs a
    little itself, so runs whose time counts go without.
    """

    def __init__(self, dsn: str, process: int) -> None:
        self._dsn = dsn
        self._process = process
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._used: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def seen(self) -> dict[str, Any]:
        """Per session, by its name: samples by wait event, and ``cpu_s``."""
        used: Counter[str] = Counter()
        for (role, _), seconds in self._used.items():
            used[role] += seconds  # type: ignore[assignment]  # a counter of seconds
        return {
            role: {"cpu_s": round(used[role], 2), **dict(self._counts[role].most_common())}
            for role in sorted(used)
        }

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            while not self._stop.wait(_EVERY):
                self._note("the tool itself", self._process)
                for pid, role, event, active in session.execute(_SESSIONS).fetchall():
                    self._note(role, pid)
                    if active:
                        self._counts[role][event] += 1

    def _note(self, role: str, pid: int) -> None:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        self._used[role, pid] = (int(words[11]) + int(words[12])) / _TICKS
