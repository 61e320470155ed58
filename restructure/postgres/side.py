"""A session kept open beside a stream, for questions that must not wait for a connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

from restructure.postgres.connect import Connection, connect

T = TypeVar("T")


class SideSession:
    """One autocommit session, made when first needed and anew when it is lost. Thread-safe."""

    def __init__(self, dsn: str, *, job: str, role: str) -> None:
        self._dsn, self._job, self._role = dsn, job, role
        self._lock = threading.Lock()
        self._session: Connection | None = None

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``, and once more in a new session if the old one turns out to be lost.

        So ``work`` must be harmless when done twice. Raises as connect does, and what
        ``work`` raises.
        """
        with self._lock:
            if self._session is not None and not self._session.closed:
                try:
                    return work(self._session)
                except psycopg.OperationalError:
                    if not self._session.closed:
                        raise
            self._session = connect(self._dsn, job=self._job, role=self._role)
            return work(self._session)

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None
