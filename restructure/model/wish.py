"""How far a job is to go."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a job.

    ``cutover`` and ``revert``: one swap, from where the job is. ``stay``: keep the other table in step
    afterwards, until told otherwise. ``finalize``: give up the way back, and drop what retired.
    ``accept_loss``: revert although rows would be lost by it. ``verify``: compare all rows once more, and
    with ``repair`` read anew those that differ.
    """

    cutover: bool = False
    revert: bool = False
    stay: bool = False
    finalize: bool = False
    accept_loss: bool = False
    verify: bool = False
    repair: bool = False
