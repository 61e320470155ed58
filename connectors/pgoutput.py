"""The stream of this database's own WAL: a publication, a slot, and a walsender that reads it.

Options: ``slot_timeout``, seconds that making the slot may wait for old transactions (30);
``sender_timeout``, seconds of silence after which the server gives a reader up (60).
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Sequence
from typing import Any

from restructure.errors import OperatorNeeded, StreamGap, UsageError
from restructure.model.change import Batch
from restructure.model.lsn import Lsn
from restructure.model.names import Names
from restructure.model.relation import Watched
from restructure.ports import StreamLag
from restructure.postgres import publication
from restructure.postgres.connect import Connection, connect
from restructure.postgres.new_slot import create_slot
from restructure.postgres.position import Position
from restructure.postgres.reader import Reading, SlotReader
from restructure.postgres.script import Script
from restructure.postgres.settled import Holder, name_holders
from restructure.postgres.side import SideSession
from restructure.postgres.slot import (
    SlotFacts,
    drop_slot,
    end_reader,
    find_slot,
    read_slot,
    require_continuity,
)
from restructure.postgres.walsender import StreamEnded, System, Walsender

log = logging.getLogger(__name__)

MESSAGE_PREFIX = "restructure"

_DEFAULTS = {"slot_timeout": 30.0, "sender_timeout": 60.0}


def open_stream(dsn: str, names: Names, options: dict[str, Any]) -> PgoutputStream:
    """The factory announced as ``pgoutput``. Raises UsageError for an unknown or bad option."""
    chosen = dict(_DEFAULTS)
    for name, value in options.items():
        if name == "kind":
            continue
        if name not in _DEFAULTS:
            raise UsageError(
                f"the stream pgoutput has no option {name!r}",
                hint=f"It has {' and '.join(_DEFAULTS)}, in seconds.",
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise UsageError(f"the stream's option {name} must be a positive number of seconds")
        chosen[name] = float(value)
    return PgoutputStream(dsn, names, **chosen)


class PgoutputStream:
    """restructure.ports.Stream over one logical slot."""

    def __init__(
        self, dsn: str, names: Names, *, slot_timeout: float, sender_timeout: float
    ) -> None:
        self._dsn = dsn
        self._names = names
        self._slot_timeout = slot_timeout
        self._sender_timeout = sender_timeout
        self._asking = SideSession(dsn, job=names.job, role="ask")
        self._fencing = SideSession(dsn, job=names.job, role="fence")
        self._interrupted = threading.Event()
        self._reading = threading.RLock()
        self._reader: SlotReader | None = None
        self._base: Position | None = None

    # -- making and removing

    def prepare(self, watched: Watched) -> str:
        """See Stream.prepare. Who is waited for is written to the log.

        Raises PreflightRefused where clients' writes would begin to fail, OperatorNeeded where
        a key has no binary form or a name is taken, NotNow where locks or old transactions are
        in the way, Interrupted after :meth:`interrupt`.
        """
        names = self._names
        with connect(self._dsn, job=names.job, role="prepare") as session:
            textual = publication.without_binary_form(session, watched.key)
            if textual:
                raise OperatorNeeded(
                    f"key columns without a binary form cannot be followed: {', '.join(textual)}",
                    hint="Their types have no send function. Choose another replica identity.",
                )
            publication.refuse_foreign(session, names.publication)
            start = self._whole(session, watched)
            if start is None:
                start = self._make(session, watched)
            digest = _digest(session, names.publication)
        sender = Walsender(self._dsn, job=names.job, sender_timeout=self._sender_timeout)
        try:
            return str(Position(sender.identify(), digest, start))
        finally:
            sender.close()

    def _whole(self, session: Connection, watched: Watched) -> Lsn | None:
        """Where an earlier run's slot stands, if it and its publication are as they must be."""
        names = self._names
        facts = find_slot(session, names.slot, job=names.job)
        if facts is None:
            return None
        if facts.usable and publication.covers(session, names.publication, watched):
            return facts.confirmed_flush
        drop_slot(session, names.slot, job=names.job)
        return None

    def _make(self, session: Connection, watched: Watched) -> Lsn:
        """Make publication, then slot: decoding a change looks up the publication as of then."""
        names = self._names
        if not publication.covers(session, names.publication, watched):
            with session.transaction():
                script = Script(session)
                publication.drop(script, names.publication)
                publication.create(script, names.publication, watched)
        return create_slot(
            self._dsn,
            names.slot,
            job=names.job,
            watch=session,
            timeout=self._slot_timeout,
            waiting=_tell_waiting,
            interrupted=self._interrupted,
        )

    def interrupt(self) -> None:
        """See Stream.interrupt."""
        self._interrupted.set()

    def drop(self) -> None:
        """See Stream.drop. A slot of that name in another database is left alone."""
        self.close()
        names = self._names
        with connect(self._dsn, job=names.job, role="drop") as session:
            drop_slot(session, names.slot, job=names.job)
            with session.transaction():
                publication.drop(Script(session), names.publication)

    # -- reading

    def open(self, watched: Watched, position: str) -> None:
        """See Stream.open. Raises Retryable where no connection is had within a minute."""
        self.close()
        base = self._base = Position.parse(position)
        reader = SlotReader(
            Reading(
                dsn=self._dsn,
                job=self._names.job,
                slot=self._names.slot,
                publication=self._names.publication,
                watched=watched,
                sender_timeout=self._sender_timeout,
                admit=self._admit,
                label=base.at,
            ),
            base.lsn,
        )
        self._reader = reader
        try:
            with self._reading:
                reader.connect()
            self._fencing.run(lambda session: session.execute("SELECT 1"))
        except BaseException:
            self.close()
            raise

    def poll(self, timeout: float, max_keys: int) -> Batch | None:
        """See Stream.poll. Raises Retryable after a minute without a connection."""
        with self._reading:
            return self._opened().poll(timeout, max_keys)

    def keepalive(self) -> None:
        """See Stream.keepalive."""
        with self._reading:
            self._opened().keepalive()

    def confirm(self, position: str) -> None:
        """See Stream.confirm. Raises ValueError beyond what poll has returned."""
        self._opened().confirm(Position.parse(position).lsn)

    def close(self) -> None:
        """See Stream.close. A poll in another thread returns None first."""
        reader = self._reader
        if reader is not None:
            reader.stop()
            with self._reading:
                reader.close()
        self._asking.close()
        self._fencing.close()

    # -- fences and lag

    def fence(self) -> str:
        """See Stream.fence. Raises Retryable when the server cannot be reached.

        A transactional message from a session of its own: its commit flushes all before it,
        and the walsender delivers it whoever holds whatever lock.
        """
        reader, base = self._opened(), self._base

        def emit(session: Connection) -> Lsn:
            row = session.execute(
                "SELECT pg_logical_emit_message(true, %s, %s)::text",
                [MESSAGE_PREFIX, secrets.token_hex(8)],
            ).fetchone()
            lsn = Lsn.parse(row[0] if row else "")
            reader.expect(lsn)
            return lsn

        lsn = self._fencing.run(emit)
        if base is None:
            raise _not_open()
        return base.at(lsn)

    def reached(self, position: str, fence: str) -> bool:
        """See Stream.reached. A position of another cluster or timeline covers nothing."""
        here, there = Position.parse(position), Position.parse(fence)
        return here.system == there.system and here.lsn >= there.lsn

    def lag(self) -> StreamLag:
        """See Stream.lag. What it finds to be wrong for good, the next poll raises.

        Raises Retryable when the server cannot be reached.
        """
        facts, digest, sync_state = self._asking.run(self._ask_lag)
        if facts is None:
            return StreamLag(0, 0, False, f"replication slot {self._names.slot} is gone")
        refusal: OperatorNeeded | None = None
        if not facts.usable:
            reason = facts.invalidation_reason or "its WAL was removed"
            refusal = StreamGap(f"replication slot {facts.name} is lost: {reason}")
        elif self._base is not None and digest != self._base.publication:
            refusal = _changed(self._names.publication)
        if refusal is None and sync_state not in (None, "async"):
            self._refuse(_standby(sync_state))
        if refusal is not None:
            self._refuse(refusal)
        return StreamLag(
            facts.lag_bytes,
            facts.retained_bytes,
            healthy=refusal is None,
            reason=refusal.message if refusal else "",
        )

    def _ask_lag(self, session: Connection) -> tuple[SlotFacts | None, str, str | None]:
        facts = read_slot(session, self._names.slot)
        row = session.execute(
            "SELECT sync_state FROM pg_stat_replication WHERE pid = %s",
            [facts.active_pid if facts else None],
        ).fetchone()
        return facts, _digest(session, self._names.publication), row[0] if row else None

    def _refuse(self, refusal: OperatorNeeded) -> None:
        if self._reader is not None:
            self._reader.refuse(refusal)

    # -- what every connection must pass

    def _admit(self, system: System) -> int:
        """The gap rules, asked at each connection. See Reading.admit."""
        reader, base = self._opened(), self._base
        if base is None or system != base.system:
            raise StreamGap(
                "another cluster or timeline answers than the one this stream began on",
                hint="After a failover or a restore changes may have been missed: abort the job "
                "and start it again.",
            )
        facts, digest, next_xid = self._asking.run(self._ask_admission)
        require_continuity(facts, self._names.slot, Lsn(reader.confirmed))
        if digest != base.publication:
            raise _changed(self._names.publication)
        return next_xid

    def _ask_admission(self, session: Connection) -> tuple[SlotFacts | None, str, int]:
        facts = read_slot(session, self._names.slot)
        if facts is not None and facts.active_pid is not None:
            if end_reader(session, facts, job=self._names.job):
                raise StreamEnded(f"our own pid {facts.active_pid} still held the slot")
            raise StreamEnded(
                f"replication slot {facts.name} is in use by pid {facts.active_pid} "
                f"({facts.active_application or 'no name'})"
            )
        row = session.execute(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
        return facts, _digest(session, self._names.publication), row[0] if row else 0

    def _opened(self) -> SlotReader:
        if self._reader is None:
            raise _not_open()
        return self._reader


def _digest(session: Connection, name: str) -> str:
    identity = publication.identity(session, name)
    return hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else "none"


def _changed(name: str) -> StreamGap:
    return StreamGap(
        f"publication {name} was dropped or changed",
        hint="Changes may have been missed: abort the job and start it again.",
    )


def _standby(sync_state: str | None) -> OperatorNeeded:
    return OperatorNeeded(
        f"our reader counts as a synchronous standby ({sync_state}): commits wait for it",
        hint="Change synchronous_standby_names so that it does not match our application_name, "
        "which begins with 'restructure'.",
    )


def _not_open() -> OperatorNeeded:
    return OperatorNeeded("the stream is not open")


def _tell_waiting(holders: Sequence[Holder]) -> None:
    log.info("making the slot waits for: %s", name_holders(holders))
