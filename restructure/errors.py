"""Every error this tool raises on purpose, grouped by what to do next.

    RestructureError                1  failed
    ├── PlanError                   2  fix the plan file (names its line)
    ├── UsageError                  2  fix the command line
    ├── PreflightRefused            3  fix what the findings name, then run again
    ├── VerifyMismatch              4  the shadow is not the transform of the source
    ├── NotNow                      5  nothing is wrong: try again later
    │   └── Retryable               5  we try again ourselves, up to a limit
    ├── OperatorNeeded              6  a person must decide
    │   ├── StreamGap               6  changes were lost: the job must start over
    │   ├── LossyRevert             6  rows or values would be lost by going back
    │   ├── SchemaDrift             6  the source changed under us
    │   ├── WayBackLost             6  the new table serves, and cannot be reverted any more
    │   └── UnknownOutcome          6  a commit was sent and never answered
    └── Interrupted               130  stopped by a signal or from another shell

The message says what happened and where; ``hint`` says what to do. Neither ever
holds a value of a row, nor a password.
"""

from __future__ import annotations

from dataclasses import dataclass


class RestructureError(Exception):
    """Something failed and no better class describes it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the plan file. Line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class PlanError(RestructureError):
    """The plan file asks for something that cannot be."""

    exit_code = 2

    def __init__(
        self, message: str, *, place: Place | None = None, hint: str | None = None
    ) -> None:
        super().__init__(f"{place}: {message}" if place else message, hint=hint)
        self.place = place


class UsageError(RestructureError):
    """The command line asks for something that cannot be."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason why a job may not start, or a thing its owner should know.

    ``refuses`` is False for a warning.
    """

    check: str
    message: str
    hint: str
    refuses: bool = True


class PreflightRefused(RestructureError):
    """At least one check found a reason not to start. Nothing was changed."""

    exit_code = 3

    def __init__(self, findings: list[Finding]) -> None:
        refusals = [finding for finding in findings if finding.refuses]
        super().__init__("; ".join(finding.message for finding in refusals))
        self.findings = findings


class VerifyMismatch(RestructureError):
    """The shadow table is not the transform of the source table.

    ``differing`` keys were found, at least; ``keys`` are the first of them, as texts.
    """

    exit_code = 4
    differing = 0
    keys: tuple[tuple[str | None, ...], ...] = ()


class NotNow(RestructureError):
    """A gate is not met or a lock was not had. Safe to repeat."""

    exit_code = 5


class Retryable(NotNow):
    """A passing trouble (connection lost, deadlock, lock timeout) that is tried again."""


class OperatorNeeded(RestructureError):
    """Going on by ourselves could lose data. A person must decide."""

    exit_code = 6


class StreamGap(OperatorNeeded):
    """The slot and the stored position disagree: changes may have been missed."""


class SchemaDrift(OperatorNeeded):
    """The source table is not the one this job was prepared for."""


class LossyRevert(OperatorNeeded):
    """The old shape cannot hold all that was written to the new one."""


class WayBackLost(OperatorNeeded):
    """The retired table could not be kept in step any longer. The new one serves as before."""


class UnknownOutcome(OperatorNeeded):
    """The swap was sent and the server has not yet told whether it committed."""


class Interrupted(RestructureError):
    """Stopped on request. Running the same command again goes on."""

    exit_code = 130
