"""The processes of one server: the postmaster, and a leash that stops it when its owner dies."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Literal

from restructure.demo.account import Account

StopMode = Literal["smart", "fast", "immediate"]

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
"""https://www.postgresql.org/docs/current/server-shutdown.html"""

_LEASH = """
read -r word || {
    read -r now < "$2" && [ "$now" = "$1" ] && kill -QUIT "$1"
}
"""
"""The pipe ends without a word only when the owner is gone. (A parent-death signal would come
already when the *thread* that started the server ends, see prctl(2).)"""

_START_TIMEOUT = 120.0
_STOP_TIMEOUT = 120.0


class Process:
    """A running server, started for ``data`` with the settings file ``conf``."""

    def __init__(self, account: Account, binaries: Path, data: Path, conf: Path, log: Path) -> None:
        self._pid_file = data / "postmaster.pid"
        with log.open("ab") as output:
            self._postmaster = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-c", f"config_file={conf}"],
                cwd="/",
                env=account.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **account.popen(),
            )
        self.pid = self._postmaster.pid
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, "leash", str(self.pid), str(self._pid_file)],
            cwd="/",
            env=account.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **account.popen(),
        )

    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._postmaster.poll() is None

    def wait_until_ready(self) -> bool:
        """Wait until it takes connections; False if it ended, or hung, instead."""
        deadline = time.monotonic() + _START_TIMEOUT
        while self.is_running() and time.monotonic() < deadline:
            if self._says_ready():
                return True
            time.sleep(0.02)
        return False

    def stop(self, mode: StopMode) -> None:
        """Stop the postmaster, then let the leash go. Waits until both have ended."""
        if self.is_running():
            self._postmaster.send_signal(_SIGNALS[mode])
            try:
                self._postmaster.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._postmaster.send_signal(signal.SIGQUIT)
                self._postmaster.wait()
        self._leash.communicate(b"done\n")

    def _says_ready(self) -> bool:
        """The eighth line does, as pg_ctl reads it (pidfile.h, LOCK_FILE_LINE_PM_STATUS)."""
        try:
            lines = self._pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"
