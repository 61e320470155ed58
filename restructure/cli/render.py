"""Everything that is printed: text or JSON, data on stdout, all else on stderr.

With ``--output json`` stdout holds one JSON document per command (one per line with ``--watch``),
an error included; its ``schema_version`` changes when a field goes or means something else, not
when one is added.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from restructure.cli.secrecy import redact
from restructure.errors import (
    Finding,
    PlanError,
    PreflightRefused,
    RestructureError,
    VerifyMismatch,
)

SCHEMA_VERSION = 1

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""Control characters, which a name from the database must not send to a terminal."""


class Output:
    """Where a command's words go. ``secret`` is the password in use, never to be shown."""

    def __init__(self, *, as_json: bool, secrets: Iterable[str] = ()) -> None:
        self.as_json = as_json
        self._secrets = [secret for secret in secrets if secret]
        self.stdout = _console(stderr=False)
        self.stderr = _console(stderr=True)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def animated(self) -> bool:
        """Whether progress may be drawn in place."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal

    def result(
        self, command: str, document: dict[str, Any], lines: Callable[[], Iterable[str]]
    ) -> None:
        """The command's data: ``document`` as JSON, or ``lines`` as text."""
        if self.as_json:
            self._json({"schema_version": SCHEMA_VERSION, "command": command, **document})
        else:
            for line in lines():
                self._print(self.stdout, line)

    def note(self, text: str, style: str = "") -> None:
        """A word to the person at the keyboard, on stderr."""
        self._print(self.stderr, self.hide(text), style)

    def warn(self, text: str) -> None:
        """As :meth:`note`, for what must not be overlooked."""
        self.note(text, "yellow")

    def error(self, error: RestructureError) -> None:
        """What went wrong and what to do about it."""
        self.note(f"error: {error}", "bold red")
        if isinstance(error, PreflightRefused):
            for line in finding_lines(error.findings):
                self.note(line)
        if error.hint:
            self.note(f"hint: {error.hint}")
        if self.as_json:
            self._json(
                {"schema_version": SCHEMA_VERSION, "error": self._hidden(error_document(error))}
            )

    def ask(self, question: str) -> bool:
        """Ask for yes or no; no is the default."""
        self._print(self.stderr, f"{question} [y/N] ", end="")
        try:
            answer = input()
        except EOFError:
            return False
        return answer.strip().lower() in ("y", "yes")

    def clear(self) -> None:
        """Begin at the top of the screen, on a terminal."""
        if self.stdout.is_terminal and not self.as_json:
            self.stdout.clear()

    def hide(self, text: str) -> str:
        """``text`` without passwords: for errors and the log, never for data, which it could
        change.
        """
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)

    def _hidden(self, document: dict[str, Any]) -> dict[str, Any]:
        return {
            key: self.hide(value) if isinstance(value, str) else value
            for key, value in document.items()
        }

    def _print(self, console: Console, text: str, style: str = "", end: str = "\n") -> None:
        shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
        console.print(Text(shown, style=style), soft_wrap=True, end=end)

    def _json(self, document: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(document, default=str, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def finding_lines(findings: Iterable[Finding]) -> Iterable[str]:
    """Every finding with its remedy."""
    for finding in findings:
        yield f"{'refused' if finding.refuses else 'warning'}  {finding.check}: {finding.message}"
        if finding.hint:
            yield f"         → {finding.hint}"


def finding_document(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "message": finding.message,
        "hint": finding.hint,
        "refuses": finding.refuses,
    }


def error_document(error: RestructureError) -> dict[str, Any]:
    """An error for a script: its class, exit code, message, hint, and place or findings where it
    has them.
    """
    document: dict[str, Any] = {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "message": str(error),
        "hint": error.hint,
    }
    if isinstance(error, PlanError) and error.place is not None:
        place = error.place
        document["place"] = {"file": place.file, "line": place.line, "column": place.column}
    if isinstance(error, VerifyMismatch):
        document["differing"] = error.differing
        document["keys"] = [list(key) for key in error.keys]
    if isinstance(error, PreflightRefused):
        document["findings"] = [finding_document(finding) for finding in error.findings]
    return document


def _console(*, stderr: bool) -> Console:
    dumb = os.environ.get("TERM", "") in ("dumb", "unknown")
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=True if dumb or os.environ.get("NO_COLOR") else None,
    )
