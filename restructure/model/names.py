"""The names of everything a job creates, derived from the job's own name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from restructure.errors import UsageError

STATE_SCHEMA = "restructure"
LONGEST_IDENTIFIER = 63
"""Bytes in an identifier: NAMEDATALEN - 1 in PostgreSQL's pg_config_manual.h."""

_PREFIX = "restructure_"
_RETIRED = "_retired"
_REVERSE = "_reverse"
LONGEST_JOB_NAME = LONGEST_IDENTIFIER - len(_PREFIX) - len(_RETIRED)
_JOB_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")


class Direction(StrEnum):
    """Which way rows travel: from the table that clients use to the other one."""

    FORWARD = "forward"  # clients use the old shape
    REVERSE = "reverse"  # clients use the new shape, and the retired table is kept in step

    @property
    def other(self) -> Direction:
        return Direction.REVERSE if self is Direction.FORWARD else Direction.FORWARD


@dataclass(frozen=True, slots=True)
class Names:
    """Every object of one job in one direction. ``Names.of(job)`` is the only way to make one.

    What is the shadow in one direction is the retired table in the other, and so is its schema.
    """

    job: str
    direction: Direction
    slot: str
    publication: str
    shadow_schema: str
    retired_schema: str
    spool: str
    quarantine: str
    kept: str
    bounds: str
    suspects: str

    @classmethod
    def of(cls, job: str, direction: Direction = Direction.FORWARD) -> Names:
        """Derive the names. Raises UsageError where the job's name cannot carry them.

        A slot's name may hold only lower-case letters, digits and underscores
        (PostgreSQL, ReplicationSlotValidateName), so a hyphen becomes one.
        """
        if not _JOB_NAME.fullmatch(job):
            raise UsageError(
                f"job name {job!r} is not usable",
                hint="Use lower-case letters, digits, hyphens and underscores, "
                "with a letter or digit at both ends.",
            )
        if len(job) > LONGEST_JOB_NAME:
            raise UsageError(
                f"job name {job!r} is {len(job)} characters long",
                hint=f"Use at most {LONGEST_JOB_NAME}: slot, publication and schemas are named after it.",
            )
        own = job.replace("-", "_")
        stem = _PREFIX + own
        back = _REVERSE if direction is Direction.REVERSE else ""
        schemas = [stem, stem + _RETIRED]
        shadow, retired = reversed(schemas) if back else schemas
        return cls(
            job=job,
            direction=direction,
            slot=stem + back,
            publication=stem + back,
            shadow_schema=shadow,
            retired_schema=retired,
            spool=f"spool_{own}{back}",
            quarantine=f"quarantine_{own}{back}",
            kept=f"kept_{own}{back}",
            bounds=f"bounds_{own}{back}",
            suspects=f"suspects_{own}{back}",
        )

    @property
    def other(self) -> Names:
        """The same job's in the other direction."""
        return Names.of(self.job, self.direction.other)

    @property
    def publications(self) -> tuple[str, str]:
        """Ours in both directions."""
        return self.publication, self.other.publication
