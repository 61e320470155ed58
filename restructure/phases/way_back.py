"""The other direction, made ready before the lock: it keeps the table that retires in step.

Inside the swap transaction its slot could not be made: that waits for every transaction with an id,
and this one has one. What the slot delivers from before the swap is ours, and is forgotten after it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from restructure.catalog import job as jobs
from restructure.catalog import spool as positions
from restructure.catalog.spool import Spool
from restructure.engine.sides import Sides, kept, new_table, watched
from restructure.engine.throttle import SlotGivenUp
from restructure.engine.work import Work
from restructure.errors import RestructureError, SchemaDrift, StreamGap, WayBackLost
from restructure.model.failpoint import failpoint
from restructure.model.names import Direction, Names
from restructure.model.phase import Phase
from restructure.phases.refused_ddl import told
from restructure.phases.removal import remove_stream, remove_tables
from restructure.ports import Stream, find_stream
from restructure.postgres.connect import Connection
from restructure.postgres.prepared import execute, prepare_text
from restructure.postgres.settled import SNAPSHOT_WITH_OURSELVES
from restructure.shape.carry.swap import Swap
from restructure.shape.fingerprint import FINGERPRINT
from restructure.shape.made import Shadow
from restructure.shape.mapping import Mapping
from restructure.shape.mapping import WayBack as Back
from restructure.shape.table import read_relation

_STALE = 256 << 20
"""Bytes of WAL behind a slot that waits for its swap, past which it is made anew."""


@dataclass(slots=True)
class WayBack:
    """The other direction of one cutover or revert. ``refused``: why there is to be none."""

    work: Work
    refused: str | None
    _mapping: Mapping | None
    _back: Back | None = None
    _begun: bool = False
    _whole: bool = False

    @classmethod
    def of(cls, work: Work) -> WayBack:
        """What the plan and the wish say of it."""
        shadow = work.made_shadow()
        if work.direction is Direction.REVERSE:
            forward = jobs.reload(work.state, work.job.id).shadow
            assert forward is not None
            new = Shadow.from_json(forward)
            return cls(work, None, new.mapping, new.back)
        back = shadow.back
        mapping = back.mapping if back is not None else None
        refused = None
        if work.finalize_wanted:
            refused = "the job was told to finalize at once"
        elif not work.plan.cutover.revert_window:
            refused = "the plan's revert_window is 0"
        elif mapping is None:
            refused = back.why if back is not None else "the job's plan has none"
        return cls(work, refused, mapping)

    def prepare(self) -> None:
        """Make spool, publication and slot, unless they are there and fresh.

        Raises NotNow where old transactions or locks are in the way.
        """
        if self.refused is not None:
            return
        if self._whole:
            with contextlib.closing(self._stream()) as stream:
                lag = stream.lag()
                if lag.healthy and lag.retained_bytes < _STALE:
                    return
        self.drop()
        work = self.work
        names = work.names.other
        new = self._sides()
        retiring = read_relation(work.state, work.source.relation.oid)
        assert self._mapping is not None
        types = [column.type_sql for column in kept(retiring, self._mapping)]
        self._begun = True
        with told("the way back cannot be made"), work.state.transaction():
            Spool(names, new.source.key).create(work.state, types)
        with (
            contextlib.closing(self._stream()) as stream,
            work.control.interruptible(stream.interrupt),
        ):
            position = stream.prepare(new.watched)
        failpoint("way back.stream")
        with work.state.transaction():
            positions.store_position(work.state, work.job.id, names.direction, position)
        self._whole = True

    def drop(self) -> None:
        """No swap came of it."""
        if self._begun:
            drop_direction(self.work, self.work.direction.other)
        self._begun = self._whole = False

    def prepare_turn(self, session: Connection, swap: Swap) -> None:
        """Have ``session`` plan :meth:`turn`, for which clients wait."""
        work = self.work
        placed = replace(work.made_shadow(), set_aside=(*work.made_shadow().set_aside, *swap.later))
        source = work.source
        retired = None
        if self._mapping is not None and self.refused is None:
            retired = Shadow(
                source.relation,
                source.leaves,
                self._mapping,
                swap.back,
                source.branches,
                self._back,
            )
        forward = work.direction is Direction.FORWARD
        shadow, reverse = (placed, retired) if forward else (retired, placed)
        words = {
            "job": work.job.id,
            "oid": placed.relation.oid,
            "shadow": Jsonb(shadow.to_json()) if shadow else None,
            "reverse": Jsonb(reverse.to_json()) if reverse else None,
            "given_up": self.refused,
        }
        statement = sql.SQL(_TURN).format(
            fingerprint=sql.SQL(FINGERPRINT), snapshot=sql.SQL(SNAPSHOT_WITH_OURSELVES)
        )
        prepare_text(session, _PREPARED, psycopg.ClientCursor(session).mogrify(statement, words))

    def turn(self, session: Connection) -> None:
        """In the swap transaction: what the job is from its commit on."""
        session.execute(execute(_PREPARED))

    def _stream(self) -> Stream:
        options = self.work.plan.stream
        return find_stream(options["kind"])(self.work.dsn, self.work.names.other, options)

    def _sides(self) -> Sides:
        work = self.work
        if work.direction is Direction.FORWARD:
            return new_table(work.state, work.job, work.made_shadow())
        source = read_relation(work.state, work.job.source)
        return Sides(source, watched(source))


def drop_direction(work: Work, direction: Direction) -> None:
    """Remove stream and spool of one direction."""
    names = Names.of(work.job.name, direction)
    remove_stream(work.dsn, names, work.plan.stream)
    remove_tables(work.state, names)


def give_up(work: Work, why: str) -> None:
    """Of a job that is live: there is no way back any more, and nothing of it is left on the server."""
    with contextlib.suppress(RestructureError):
        work.stream.close()
    with work.state.transaction():
        jobs.store(work.state, work.job.id, given_up=why, request=None)
    drop_direction(work, Direction.REVERSE)
    work.tell("no way back", why=why)


def lost(work: Work, error: BaseException) -> BaseException:
    """What an error of a job that is live means: one that ends the way back is told as that."""
    if work.phase is not Phase.LIVE or not isinstance(error, SchemaDrift | StreamGap | SlotGivenUp):
        return error
    with contextlib.suppress(psycopg.Error, RestructureError):
        give_up(work, error.message)
    return WayBackLost(
        f"there is no way back any more: {error.message}",
        hint="The new table serves as before, and the old one stays as it was last kept in step. "
        f"restructure finalize {work.job.name} drops it.",
    )


_PREPARED = "restructure_turn"

_TURN = """
UPDATE restructure.job
SET shadow = %(shadow)s, reverse = %(reverse)s, fingerprint = ({fingerprint})::jsonb,
    copy_snapshot = ({snapshot})::pg_snapshot, swapped_at = clock_timestamp(), aftermath = true,
    given_up = %(given_up)s
WHERE id = %(job)s
"""
