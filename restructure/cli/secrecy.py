"""Passwords: out of the process list, and out of everything that is printed.

Nothing of ours is imported here, so that a password given on the command line is visible to other
accounts of the machine for a few milliseconds only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

DSN_VARIABLE = "RESTRUCTURE_DSN"

_OPTION = "--dsn"
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]*://[^\s:/@'\"]*):[^\s@'\"]+@", re.IGNORECASE)
_WORD = re.compile(r"\b((?:ssl)?password)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE)


def hide_dsn() -> None:
    """Where ``--dsn`` was given, start this process again with it in the environment.

    The environment of a process can be read by its own account only, its arguments by everybody.
    Interpreter, its options and the way we were started stay the same.
    """
    words = sys.argv[1:]
    dsn, rest = without_dsn(words)
    if not dsn:
        return
    start = sys.orig_argv[: len(sys.orig_argv) - len(words)]
    environment = {**os.environ, DSN_VARIABLE: dsn}
    sys.stdout.flush()
    os.execve(sys.executable, [*start, *rest], environment)


def without_dsn(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take ``--dsn DSN`` or ``--dsn=DSN`` out of the arguments; the last one counts.

    Nothing behind ``--`` is an option. An option without its value stays, for the parser to refuse.
    """
    dsn: str | None = None
    rest: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            rest.extend(words[index:])
            break
        if word == _OPTION and index + 1 < len(words):
            dsn = words[index + 1]
            index += 1
        elif word.startswith(f"{_OPTION}="):
            dsn = word.removeprefix(f"{_OPTION}=")
        else:
            rest.append(word)
        index += 1
    return dsn, rest


def redact(text: str) -> str:
    """Replace what looks like a password in a connection string."""
    text = _IN_URL.sub(r"\1:***@", text)
    return _WORD.sub(r"\1=***", text)
