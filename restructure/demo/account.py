"""Which account PostgreSQL runs as. It refuses root, so root hands it to one without rights."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restructure.errors import RestructureError

_WITHOUT_RIGHTS = ("nobody", "postgres", "daemon")
"""Accounts that exist almost everywhere. "postgres" comes second: where it exists it may own
a production server, whose files a demo has no business to be able to read."""


@dataclass(frozen=True, slots=True)
class Account:
    """An existing account that runs PostgreSQL's programs; ``borrowed`` if it is not our own."""

    uid: int
    gid: int
    name: str
    borrowed: bool

    def popen(self) -> dict[str, Any]:
        """Keyword arguments that make subprocess start a program as this account."""
        if not self.borrowed:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def environment(self) -> dict[str, str]:
        """A plain environment: no PG* variable or locale of the caller reaches the server."""
        return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end. Raises OSError where the account cannot start it."""
        return subprocess.run(
            [str(word) for word in command],
            cwd="/",
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,
            check=False,
            **self.popen(),
        )


def find_account() -> Account:
    """Return our own account, or for root an existing one without rights.

    Raises RestructureError where root has none to turn to.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(uid, os.getegid(), f"uid {uid}", borrowed=False)
    for name in _WITHOUT_RIGHTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid == 0:
            continue
        account = Account(entry.pw_uid, entry.pw_gid, name, borrowed=True)
        try:
            account.run(["/bin/sh", "-c", "exit 0"])
        except (OSError, subprocess.SubprocessError):
            continue
        return account
    raise RestructureError(
        "PostgreSQL refuses to run as root, and no account without rights can be used instead",
        hint=f"Run this as an ordinary user, or let root become {' or '.join(_WITHOUT_RIGHTS)}.",
    )
