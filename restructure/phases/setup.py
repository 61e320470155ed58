"""Setup: publication, slot, barrier, shadow. Undone as a whole by abort."""

from __future__ import annotations

from collections.abc import Sequence

from restructure.catalog import chunks, spool
from restructure.catalog import job as jobs
from restructure.engine.work import Work
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.plan.load import LoadedPlan
from restructure.postgres.script import Script
from restructure.postgres.settled import Holder, name_holders, wait_for_writers
from restructure.shape.carry.tripwire import create_tripwire_function
from restructure.shape.fingerprint import fingerprint
from restructure.shape.shadow import Shadow, build_shadow

_BARRIER_TIMEOUT = 600.0
"""Seconds to wait for transactions that were writing to the source when the slot was made."""


def run(work: Work, loaded: LoadedPlan) -> None:
    """Make everything the job needs, in the order that loses nothing.

    Publication before slot: decoding looks publications up as of the change, and PostgreSQL 18 silently skips
    what it cannot find. Barrier after slot: a transaction that committed before the slot's start may not be
    visible yet, and is then in neither the stream nor a snapshot of ours. Sizes and file nodes after the barrier.
    """
    with work.state.transaction():
        work.spool.create(work.state)
    with work.control.interruptible(work.stream.interrupt):
        position = work.stream.prepare(work.watched)
    failpoint("setup.stream")
    with work.state.transaction():
        spool.store_position(work.state, work.job.id, work.direction, position)
    work.tell("slot", name=work.names.slot)
    oids = [leaf.oid for leaf in work.source.leaves]
    _pass_barrier(work, oids)
    failpoint("setup.barrier")
    with work.state.transaction():
        work.shadow = make_shadow(work, loaded)
        begin_copy(work)
        jobs.advance(work.state, work.job.id, work.token, Phase.SETUP, Phase.COPY)
        failpoint("setup.commit")
    work.phase = Phase.COPY
    work.listener(Phase.COPY, "entered", {})


def _pass_barrier(work: Work, oids: list[int]) -> None:
    told: list[str] = []

    def waiting(holders: Sequence[Holder]) -> None:
        work.control.check()
        failpoint("setup.waiting")
        if not told:
            told.append(name_holders(holders))
            work.tell("waiting for writers", who=told[0])

    wait_for_writers(work.state, oids, _BARRIER_TIMEOUT, waiting=waiting)


def make_shadow(work: Work, loaded: LoadedPlan) -> Shadow:
    """Build the shadow and note what it was made from, in the caller's transaction."""
    script = Script(work.state)
    shadow = build_shadow(script, work.source, loaded, work.names)
    create_tripwire_function(work.state)
    jobs.store(
        work.state,
        work.job.id,
        shadow=shadow.to_json(),
        fingerprint=fingerprint(work.state, work.source.relation).to_json(),
    )
    return shadow


def begin_copy(work: Work) -> None:
    """Note file nodes and sizes, then the snapshot after which truncations count, in this order.

    A TRUNCATE between the two is found by the file node of the first chunk.
    """
    chunks.begin(work.state, work.job.id, [leaf.oid for leaf in work.source.leaves])
    row = work.state.execute("SELECT pg_current_snapshot()::text").fetchone()
    assert row is not None
    jobs.store(work.state, work.job.id, copy_snapshot=row[0])
