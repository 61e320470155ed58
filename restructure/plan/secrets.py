"""A plan is committed, mailed and stored in the database: it must hold no secret."""

from __future__ import annotations

import re

_KEY = re.compile(
    r"(.*_)?(password|passwd|passphrase|pwd|secret|token|credentials?|api_?key|private_?key)"
    r"|pgpass(word|file)?|dsn|conninfo|connection(_string)?|database_ur[il]|ur[il]",
    re.IGNORECASE,
)
_CREDENTIALS_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s:/@'\"]*:[^\s/@'\"]+@", re.IGNORECASE)
_PASSWORD_WORD = re.compile(r"\b(?:ssl|pg)?password\s*=\s*[^\s=]", re.IGNORECASE)
_CONNECTION_WORD = re.compile(
    r"\b(?:pg)?(?:host|hostaddr|dbname|database|port|service)\s*=", re.IGNORECASE
)

_NAMES_OF_COLUMNS = ("columns", "reverse")
"""Sections whose keys are columns; a column may well be called ``password``."""


def secret_key(section: tuple[str | int, ...], key: str) -> bool:
    """Whether ``key`` in ``section`` is the name of something that belongs elsewhere."""
    if section and section[0] in _NAMES_OF_COLUMNS:
        return False
    return bool(_KEY.fullmatch(key.replace("-", "_").replace(" ", "_")))


def find_secret(text: str) -> int | None:
    """Where a connection string with a password begins, comments included; None if nowhere.

    Looks for ``scheme://user:password@`` and for lines that hold both ``password=`` and another
    word of a libpq connection string.
    """
    found = _CREDENTIALS_IN_URL.search(text)
    if found:
        return found.start()
    start = 0
    for line in text.splitlines(keepends=True):
        word = _PASSWORD_WORD.search(line)
        if word and _CONNECTION_WORD.search(line):
            return start + word.start()
        start += len(line)
    return None
