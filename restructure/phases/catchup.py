"""Catch-up: apply the spool until little is left, then give the shadow its statistics."""

from __future__ import annotations

from psycopg import sql

from restructure.engine.work import Work
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.phases.refused_ddl import told
from restructure.postgres.script import Script
from restructure.shape.carry import statistics
from restructure.shape.carry.kind import Carrying

FEW_KEYS = 2_000
"""Pending keys below which the last of them can be merged under the lock: some 20 ms of work."""


def run(work: Work) -> None:
    """Apply until few keys are pending; a source that is faster than we are is followed for ever."""
    until_few_pending(work)
    shadow = work.made_shadow()
    with told("extended statistics cannot be made on the new table"), work.state.transaction():
        statistics.ahead(
            Script(work.state), Carrying.of(work.state, work.source, shadow, work.names)
        )
    relation = shadow.relation.identifier
    work.control.long_statement(
        work.state,
        lambda: _execute(work, sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(relation)),
    )
    until_few_pending(work)
    work.advance(Phase.READY)


def apply_pending(work: Work) -> int:
    """Apply one window, if anything waits; how many keys went."""
    gone = work.ready_applier().apply(work.fence)
    failpoint("catchup.applied")
    return gone


def apply_all(work: Work) -> int:
    """Apply whatever is spooled and settled now; how many keys went.

    What arrives meanwhile is left: under constant writes there would be no end to it.
    """
    waiting = work.spool.pending(work.state)
    total = 0
    while total < waiting and (gone := apply_pending(work)):
        total += gone
        work.control.checkpoint()
    return total


def until_few_pending(work: Work) -> None:
    """Apply until few keys are left. Few keys left is enough: clients that never rest would always leave some."""
    while True:
        work.control.checkpoint()
        if apply_pending(work) > FEW_KEYS:
            continue
        work.fence()
        if work.spool.pending(work.state) <= FEW_KEYS:
            return
        work.breathe()


def _execute(work: Work, statement: sql.Composed) -> None:
    work.state.execute(statement)
