"""Clients that go on working: pgbench with a mix of every kind of write, each wait logged."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.place import Place, environment

_KEY = "\\set id random(1, {rows})\n\\set other random(1, 100000)\n"

MIX: Mapping[str, tuple[int, str]] = {
    "update": (30, "UPDATE orders SET customer = :other WHERE id = :id;"),
    "hot": (30, "UPDATE orders SET status = 'seen ' || :other WHERE id = :id;"),
    "insert": (15, "INSERT INTO orders (customer, note) VALUES (:other, repeat('x', 128));"),
    "delete": (5, "DELETE FROM orders WHERE id = :id;"),
    "rekey": (5, "UPDATE orders SET id = nextval('spare') WHERE id = :id;"),
    "range": (5, "UPDATE orders SET status = 'batch' WHERE id BETWEEN :id AND :id + 20;"),
    "reinsert": (
        10,
        "BEGIN;\nDELETE FROM orders WHERE id = :id;\nSAVEPOINT again;\n"
        "INSERT INTO orders (id, customer, note) VALUES (:id, :other, repeat('y', 128))"
        " ON CONFLICT DO NOTHING;\nCOMMIT;",
    ),
}
"""Weight and statements of each transaction. They fit the old shape and the new one."""

FLOOD: Mapping[str, tuple[int, str]] = {
    "flood": (1, "UPDATE orders SET status = 'f ' || :other WHERE id BETWEEN :id AND :id + 199;"),
}
"""More keys than anybody can follow."""


class Wait(NamedTuple):
    """One transaction: when it began and ended (seconds since 1970), as its client saw it."""

    began: float
    ended: float

    @property
    def milliseconds(self) -> float:
        return (self.ended - self.began) * 1000


class Clients:
    """``with Clients(place, dsn, …) as clients``: at work until :meth:`stop`.

    ``rate`` in transactions per second for all of them together; None for as many as they can.
    """

    def __init__(
        self,
        place: Place,
        dsn: str,
        *,
        rate: int | None = 1500,
        clients: int = 4,
        mix: Mapping[str, tuple[int, str]] = MIX,
        synchronous: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name)
        self._command = [str(place.program("pgbench")), "-n", "-M", "simple"]
        self._command += ["-c", str(clients), "-j", str(min(clients, 2)), "-T", "86400", "-l"]
        self._command += ["--log-prefix", str(self._path / "log"), "--max-tries", "10"]
        if rate is not None:
            self._command += ["-R", str(rate)]
        for name, (weight, statements) in mix.items():
            script = self._path / f"{name}.sql"
            script.write_text(_KEY.format(rows=place.rows) + statements + "\n")
            self._command += ["-f", f"{script}@{weight}"]
        self._environment = environment(dsn)
        if not synchronous:
            self._environment["PGOPTIONS"] = "-c synchronous_commit=off"
        self.waits: list[Wait] = []
        self.failed = 0
        self.output = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()

    def stop(self) -> None:
        """Let each client finish, then read what they waited for.

        SIGALRM is how pgbench itself ends a run with -T: logs are written to their end.
        """
        assert self._process.poll() is None, f"clients ended early: {self._process.stdout}"
        self._process.send_signal(signal.SIGALRM)
        self.output, _ = self._process.communicate()
        for log in self._path.glob("log.*"):
            with log.open() as lines:
                self._read(lines)
        self.waits.sort(key=lambda wait: wait.ended)

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            # client, transaction, microseconds, script, epoch, microseconds[, lag][, retries]
            words = line.split()
            if not words[2].isdigit():
                self.failed += 1
                continue
            ended = int(words[4]) + int(words[5]) / 1e6
            lag = int(words[6]) if "-R" in self._command else 0
            self.waits.append(Wait(ended - (int(words[2]) - lag) / 1e6, ended))

    def typical(self, since: float, until: float) -> float:
        """Median wait in milliseconds of transactions that ended in a stretch of time."""
        return median(w.milliseconds for w in self.waits if since <= w.ended <= until)

    def longest(self, since: float, until: float) -> float:
        """Longest wait in milliseconds of transactions that were under way in it."""
        return max(w.milliseconds for w in self.waits if w.ended >= since and w.began <= until)

    def summary(self, since: float, until: float) -> dict[str, Any]:
        """Figures of a stretch of time for the raw samples."""
        found = sorted(w.milliseconds for w in self.waits if since <= w.ended <= until)
        if not found:
            return {"transactions": 0}
        return {
            "transactions": len(found),
            "per_second": round(len(found) / (until - since)),
            "median_ms": round(median(found), 3),
            "p99_ms": round(found[int(len(found) * 0.99)], 3),
            "max_ms": round(found[-1], 3),
        }


def work_for(clients: Clients, seconds: float) -> tuple[float, float]:
    """Let the clients work for a while; the stretch of time that was."""
    began = time.time()
    time.sleep(seconds)
    return began, time.time()
