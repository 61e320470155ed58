"""Ready: keep the shadow in step until somebody asks for the cutover."""

from __future__ import annotations

import time

from restructure.engine.work import Work
from restructure.phases.catchup import apply_pending

RETRY_QUARANTINE_EVERY = 10.0
"""Seconds after which rows that the new shape refused are tried again: their owner may have corrected them."""


def run(work: Work) -> bool:
    """Follow until a cutover is wanted; True for that, False where nobody asked to stay."""
    retried = time.monotonic()
    while not work.cutover_wanted:
        if not work.stay_ready:
            return False
        work.control.checkpoint()
        if time.monotonic() - retried > RETRY_QUARANTINE_EVERY:
            work.spool.retry_quarantined(work.state)
            retried = time.monotonic()
        if not apply_pending(work):
            work.breathe()
    return True
