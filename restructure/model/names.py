"""The names of everything a job creates, derived from the job's own name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from restructure.errors import UsageError

STATE_SCHEMA = "restructure"
LONGEST_IDENTIFIER = 63
"""Bytes in an identifier: NAMEDATALEN - 1 in PostgreSQL's pg_config_manual.h."""

_PREFIX = "restructure_"
_RETIRED = "_retired"
LONGEST_JOB_NAME = LONGEST_IDENTIFIER - len(_PREFIX) - len(_RETIRED)
_JOB_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Names:
    """Every object of one job. ``Names.of(job)`` is the only way to make one."""

    job: str
    slot: str
    publication: str
    shadow_schema: str
    retired_schema: str
    spool: str
    quarantine: str

    @classmethod
    def of(cls, job: str) -> Names:
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
        stem = _PREFIX + job.replace("-", "_")
        return cls(
            job=job,
            slot=stem,
            publication=stem,
            shadow_schema=stem,
            retired_schema=stem + _RETIRED,
            spool="spool_" + stem.removeprefix(_PREFIX),
            quarantine="quarantine_" + stem.removeprefix(_PREFIX),
        )
