"""The command in a process of its own, forked from one that has imported everything already.

Starting Python and importing takes 0.7 s of processor time, which for hundreds of commands was a
fifth of what all tests take. From there on it is the real thing: ``main`` with arguments,
environment, files for stdout and stderr, signals. With a DSN among the arguments, which is taken
off the process list by starting again, Python is started.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from restructure.cli.app import main
from restructure.model import failpoint

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["restructure.cli.commandline", __name__])


class Command:
    """``restructure WORDS`` under way. A negative exit code is the signal that ended it."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        folder = tempfile.mkdtemp(prefix="restructure-command-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._files = [Path(folder, name) for name in ("stdout", "stderr")]
        for file in self._files:
            file.touch()
        self._process = _FORKS.Process(
            target=_become,
            args=(list(words), dict(environment), [str(file) for file in self._files]),
            daemon=True,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._files[0].read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._files[1].read_text(errors="replace")

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, patience: float) -> int:
        """Its exit code, when it has ended. Fails when it does not."""
        self._process.join(patience)
        code = self._process.exitcode
        assert code is not None, f"it did not end:\n{self.stdout}\n{self.stderr}"
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(words: list[str], environment: dict[str, str], files: list[str]) -> None:
    """In the forked process: what a start from a shell brings about."""
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    if any(word.startswith("--dsn") for word in words):
        os.execve(sys.executable, [sys.executable, "-m", "restructure", *words], environment)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # as long as the process lives
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    wanted = environment.get("RESTRUCTURE_FAILPOINT", "")
    failpoint._NAME, _, failpoint._ACTION = wanted.partition("=")
    sys.argv = ["restructure", *words]
    main()
