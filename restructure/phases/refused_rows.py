"""Sentences about rows that the new table would refuse: their keys, never their values."""

from __future__ import annotations

from restructure.engine.trial.rule import Kind, NotLookedAt
from restructure.engine.trial.tally import Key, Refused
from restructure.errors import Finding

_LONGEST = 60
"""Characters of a key's column that are shown."""

_WHAT: dict[Kind, str] = {
    "value": "the value of {name} cannot be made ({reason})",
    "length": "the value of {name} is too long or too large for its type",
    "not_null": "{name} would be NULL, and is NOT NULL",
    "check": "constraint {name} refuses them",
    "partition": "no partition takes them ({name})",
    "foreign_key": "foreign key {name} finds no row that they refer to",
    "index": "an expression of index {name} cannot be evaluated ({reason})",
    "unique": "unique index {name}: each is equal to another one of them",
}

_CORRECT = "Correct the rows first, leave them behind by where, or "
_HINTS: dict[Kind, str] = {
    "value": _CORRECT + "write an expression under columns that bears them.",
    "length": _CORRECT + "take a wider type.",
    "not_null": _CORRECT + "give the column an expression that always has a value: coalesce().",
    "check": _CORRECT + "add the constraint as NOT VALID, which lets old rows be.",
    "partition": _CORRECT + "add partitions, or a DEFAULT one.",
    "foreign_key": _CORRECT + "add the foreign key as NOT VALID, which lets old rows be.",
    "index": _CORRECT + "give the index a WHERE that leaves them out.",
    "unique": _CORRECT + "take a longer key.",
}


def finding(refused: Refused, table: str, key: tuple[str, ...], *, complete: bool) -> Finding:
    """What is wrong with how many rows, and which are the first."""
    count = f"{'' if complete else 'at least '}{refused.rows:,} row{'s' * (refused.rows != 1)}"
    raised = refused.kind not in ("value", "index") and refused.reason
    what = _WHAT[refused.kind].format(name=refused.name, reason=refused.reason)
    if raised:
        what = f"{refused.kind.replace('_', ' ')} {refused.name} raises {refused.reason}"
    more = " …" if refused.rows > len(refused.keys) else ""
    shown = ", ".join(_shown(one) for one in refused.keys)
    return Finding(
        f"data: {refused.kind}",
        f"{count} of {table}: {what}; {', '.join(key)}: {shown}{more}",
        _HINTS[refused.kind],
    )


def unjudged(demand: NotLookedAt) -> Finding:
    """A demand that nobody has looked at yet."""
    return Finding(
        f"data: {demand.kind}",
        f"{demand.name} was not looked at: {demand.why}",
        "The job itself finds out, before the cutover or, for a foreign key, right after it.",
        refuses=False,
    )


def _shown(key: Key) -> str:
    parts = [part if len(part) <= _LONGEST else part[:_LONGEST] + "…" for part in key]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"
