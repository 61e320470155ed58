"""Where the time goes: what our sessions are seen waiting for, looked at again and again."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict

import psycopg

_EVERY = 0.05


class WaitSampler:
    """Counts, for each session of the tool, its wait events; "CPU" where it waits for nothing.

    Costs a little itself, so runs whose time counts go without.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def seen(self) -> dict[str, dict[str, int]]:
        return {role: dict(counts.most_common()) for role, counts in self._counts.items()}

    def _run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            while not self._stop.wait(_EVERY):
                for role, event in session.execute(
                    """
                    SELECT a.application_name || CASE WHEN a.backend_type = 'parallel worker'
                               THEN ' (parallel)' ELSE '' END,
                           coalesce(a.wait_event_type || ':' || a.wait_event, 'CPU')
                      FROM pg_stat_activity a
                     WHERE a.application_name LIKE 'restructure %'
                       AND (a.state = 'active' OR a.backend_type = 'parallel worker')
                    """
                ).fetchall():
                    self._counts[role][event] += 1
