"""Named moments at which a test can make this process die, freeze or fail.

Set ``RESTRUCTURE_FAILPOINT`` to ``NAME=kill``, ``NAME=stop`` (SIGSTOP) or ``NAME=raise``;
without it :func:`failpoint` does nothing. The names are those of the calls: search for
``failpoint(`` to list them. A test that runs the tool in its own process puts what it
wants done there into :data:`here`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from restructure.errors import RestructureError

_NAME, _, _ACTION = os.environ.get("RESTRUCTURE_FAILPOINT", "").partition("=")

here: dict[str, Callable[[], None]] = {}
"""Called, by the thread that passes, at the failpoint of that name."""


def failpoint(name: str) -> None:
    """Do what the environment asks for at ``name``."""
    if name in here:
        here[name]()
    if name != _NAME:
        return
    if _ACTION == "raise":
        raise RestructureError(f"failpoint {name}")
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[_ACTION])
