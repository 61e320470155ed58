"""The phases of a job, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from restructure.model.names import Direction


class Phase(StrEnum):
    """Where a job is. Who leaves each phase is named beside it."""

    PLANNED = "planned"  # left by the runner when the checks pass
    SETUP = "setup"  # left when slot, shadow and barrier are done
    COPY = "copy"  # left when every chunk is done
    INDEX = "index"  # left when the shadow has all its indexes
    CATCHUP = "catchup"  # left when few keys are pending
    READY = "ready"  # left by a cutover that somebody asked for
    CUTOVER = "cutover"  # left inside the swap transaction, or back to ready
    LIVE = "live"  # the new shape serves; left by finalize, or inside a revert's swap transaction
    REVERTED = "reverted"  # the old shape serves again, as in ready
    FINALIZED = "finalized"  # the end
    ABORTED = "aborted"  # the end, with the source as it was


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.PLANNED: frozenset({Phase.SETUP, Phase.ABORTED}),
    Phase.SETUP: frozenset({Phase.COPY, Phase.ABORTED}),
    Phase.COPY: frozenset({Phase.INDEX, Phase.ABORTED}),
    Phase.INDEX: frozenset({Phase.CATCHUP, Phase.COPY, Phase.ABORTED}),
    Phase.CATCHUP: frozenset({Phase.READY, Phase.ABORTED}),
    Phase.READY: frozenset({Phase.CUTOVER, Phase.CATCHUP, Phase.ABORTED}),
    Phase.CUTOVER: frozenset({Phase.LIVE, Phase.READY, Phase.REVERTED, Phase.ABORTED}),
    Phase.LIVE: frozenset({Phase.REVERTED, Phase.FINALIZED}),
    Phase.REVERTED: frozenset({Phase.CUTOVER, Phase.ABORTED}),
    Phase.FINALIZED: frozenset(),
    Phase.ABORTED: frozenset(),
}

ENDED = frozenset({Phase.FINALIZED, Phase.ABORTED})


def source_serves(phase: Phase) -> bool:
    """Whether clients use the old shape, and the job is not at its end."""
    return phase is not Phase.LIVE and phase not in ENDED


def direction(phase: Phase) -> Direction:
    """Which way rows travel in ``phase``."""
    return Direction.REVERSE if phase is Phase.LIVE else Direction.FORWARD
