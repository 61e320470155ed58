"""Servers whose owner is gone: found, stopped and removed by the next start of anything."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from restructure.demo.folders import alone, is_owned, remove_tree

_GRACE = 15.0
"""Seconds. The postmaster itself gives its children 5 before it kills them (postmaster.c)."""


def sweep(home: Path) -> list[Path]:
    """Stop every server under ``home`` that nobody owns and remove its files; return which."""
    removed = []
    with alone(home):
        for folder in sorted((home / "servers").glob("*")):
            if not is_owned(folder):
                stop_process(folder / "data")
                remove_tree(folder)
                removed.append(folder)
    return removed


def stop_process(data: Path) -> None:
    """Stop the server of a data folder at once, without a shutdown checkpoint."""
    pid = postmaster(data)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        deadline = time.monotonic() + _GRACE
        while pid is not None and time.monotonic() < deadline and _serves(pid, data):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def postmaster(data: Path) -> int | None:
    """Return the number of the living process that serves this data folder, if there is one.

    A number in postmaster.pid may be another process's by now: only one that was started with
    this very folder counts.
    """
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None
    return pid if _serves(pid, data) else None


def _serves(pid: int, data: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        if Path("/proc/self/cmdline").exists():
            return False
        answer = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
        )
        words = answer.stdout.split()
    return os.fsencode(data) in words
