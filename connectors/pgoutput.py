"""The stream of this database's own WAL: a publication, a slot, and a walsender that reads it.

Options: ``slot_timeout``, seconds that making the slot may wait for old transactions (30);
``sender_timeout``, seconds of silence after which the server gives a reader up (60).
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg

from restructure.errors import OperatorNeeded, Retryable, StreamGap, UsageError
from restructure.model.change import Batch
from restructure.model.lsn import Lsn
from restructure.model.names import Names
from restructure.model.relation import Watched
from restructure.ports import StreamLag
from restructure.postgres import publication
from restructure.postgres.assembly import Assembly, ReplayWhole
from restructure.postgres.connect import Connection, connect
from restructure.postgres.new_slot import create_slot
from restructure.postgres.script import Script
from restructure.postgres.settled import Holder, name_holders
from restructure.postgres.slot import (
    SlotFacts,
    drop_slot,
    end,
    find_slot,
    read_slot,
    require_continuity,
)
from restructure.postgres.walsender import Keepalive, StreamEnded, System, Walsender

log = logging.getLogger(__name__)

T = TypeVar("T")

MESSAGE_PREFIX = "restructure"
PATIENCE = 60.0
"""Seconds without a working connection after which poll gives up with Retryable."""

_LONGEST_INTERVAL = 10.0
"""Seconds between status reports, and between positions handed out while nothing happens."""

_HALF_TRANSACTION = 0.05
"""Seconds to wait for the rest of a transaction before handing out its first keys."""

_LOOK_UP_EVERY = 512
"""Messages between two looks at the clock."""


def open_stream(dsn: str, names: Names, options: dict[str, Any]) -> PgoutputStream:
    """The factory announced as ``pgoutput``. Raises UsageError for an unknown option."""
    known = {"kind": "pgoutput", "slot_timeout": 30.0, "sender_timeout": 60.0}
    for name, value in options.items():
        if name not in known:
            raise UsageError(
                f"the stream pgoutput has no option {name!r}",
                hint="It has slot_timeout and sender_timeout, in seconds.",
            )
        if name != "kind" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"the stream's option {name} must be a number of seconds")
    chosen = {**known, **options}
    return PgoutputStream(
        dsn,
        names,
        slot_timeout=float(chosen["slot_timeout"]),
        sender_timeout=float(chosen["sender_timeout"]),
    )


class Position(NamedTuple):
    """Where a stream is, with what must not have changed when reading goes on from there.

    ``publication`` is a digest of the publication's identity. As text:
    ``system/timeline/publication/LSN``.
    """

    system: System
    publication: str
    lsn: Lsn

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read the text form. Raises OperatorNeeded on anything else."""
        try:
            identifier, timeline, digest, lsn = text.split("/", 3)
            return cls(System(identifier, int(timeline)), digest, Lsn.parse(lsn))
        except ValueError as error:
            raise OperatorNeeded(f"not a position of a pgoutput stream: {text!r}") from error

    def __str__(self) -> str:
        return f"{self.system.identifier}/{self.system.timeline}/{self.publication}/{self.lsn}"

    def at(self, lsn: int) -> str:
        """The text of the same stream's position ``lsn``."""
        return str(self._replace(lsn=Lsn(lsn)))


class PgoutputStream:
    """restructure.ports.Stream over one logical slot."""

    def __init__(
        self, dsn: str, names: Names, *, slot_timeout: float = 30.0, sender_timeout: float = 60.0
    ) -> None:
        self._dsn = dsn
        self._names = names
        self._slot_timeout = slot_timeout
        self._sender_timeout = sender_timeout
        self._interval = min(_LONGEST_INTERVAL, sender_timeout / 3)
        self._asking = _Side(dsn, names.job, "ask")
        self._fencing = _Side(dsn, names.job, "fence")
        self._reading = threading.RLock()
        self._waker = _Waker()
        self._closed = True
        self._sender: Walsender | None = None
        self._refusal: OperatorNeeded | None = None
        self._fences: list[int] = []

    # -- making and removing

    def prepare(self, watched: Watched) -> str:
        """See Stream.prepare. The slot's transactions are named in the log while it waits.

        Raises PreflightRefused where clients' writes would begin to fail, OperatorNeeded where
        a key has no binary form or a name is taken, NotNow where old transactions are in the way.
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
            facts = find_slot(session, names.slot, job=names.job)
            fitting = publication.covers(session, names.publication, watched)
            if facts is not None and not (fitting and facts.usable and facts.confirmed_flush):
                # Nothing was read from it yet, for nobody has its position: begin again.
                drop_slot(session, names.slot, job=names.job)
                facts = None
            if not fitting:
                with session.transaction():
                    script = Script(session)
                    publication.drop(script, names.publication)
                    publication.create(script, names.publication, watched)
            if facts is not None and facts.confirmed_flush is not None:
                start = facts.confirmed_flush
            else:
                start = create_slot(
                    self._dsn,
                    names.slot,
                    job=names.job,
                    watch=session,
                    timeout=self._slot_timeout,
                    waiting=_tell_waiting,
                )
            digest = _digest(session, names.publication)
        sender = Walsender(self._dsn, job=names.job, sender_timeout=self._sender_timeout)
        try:
            return str(Position(sender.identify(), digest, start))
        finally:
            sender.close()

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
        """See Stream.open. Keeps trying for PATIENCE seconds, then raises Retryable."""
        self.close()
        with self._reading:
            self._base = Position.parse(position)
            self._watched = watched
            self._assembly: Assembly | None = None
            self._confirmed = self._delivered = int(self._base.lsn)
            self._replay_until = 0
            self._refusal = None
            self._fences = []
            self._failing_since: float | None = None
            self._pause = 0.0
            self._retry_at = self._given_at = time.monotonic()
            self._closed = False
            try:
                self._fencing.open()
                while self._sender is None and not self._closed:
                    self._reconnect(time.monotonic() + PATIENCE)
            except BaseException:
                self.close()
                raise

    def poll(self, timeout: float, max_keys: int) -> Batch | None:
        """See Stream.poll. Raises Retryable after PATIENCE seconds without a connection."""
        deadline = time.monotonic() + timeout
        with self._reading:
            while not self._closed:
                if self._refusal is not None:
                    raise self._refusal
                try:
                    if self._sender is None:
                        self._reconnect(deadline)
                    if self._sender is not None:
                        return self._read(self._sender, deadline, max_keys)
                except ReplayWhole as replay:
                    log.info("reading again a transaction that truncated a table, unstreamed")
                    self._replay_until = replay.end_lsn
                    self._hang_up()
                except StreamEnded as ended:
                    self._failed(ended)
                if time.monotonic() >= deadline:
                    return self._cut() if self._worth_giving() else None
        return None

    def keepalive(self) -> None:
        """See Stream.keepalive."""
        with self._reading:
            if self._sender is not None and not self._closed:
                try:
                    self._report(self._sender, time.monotonic(), idle=False)
                except StreamEnded as ended:
                    self._failed(ended)

    def confirm(self, position: str) -> None:
        """See Stream.confirm. Raises ValueError beyond what poll has returned."""
        lsn = int(Position.parse(position).lsn)
        if lsn > self._delivered:
            raise ValueError(f"{position} was not delivered yet")
        self._confirmed = max(self._confirmed, lsn)
        self._waker.wake()

    # -- fences

    def fence(self) -> str:
        """See Stream.fence. Raises Retryable when the server cannot be reached.

        A transactional message from a session of its own: its commit flushes everything before
        it, and the walsender delivers it whoever holds whatever lock.
        """
        token = os.urandom(8).hex()
        row = self._fencing.run(
            lambda session: session.execute(
                "SELECT pg_logical_emit_message(true, %s, %s)::text", [MESSAGE_PREFIX, token]
            ).fetchone()
        )
        lsn = Lsn.parse(row[0]) if row else Lsn(0)
        self._fences.append(lsn)
        self._waker.wake()
        return self._base.at(lsn)

    def reached(self, position: str, fence: str) -> bool:
        """See Stream.reached. A position of another cluster or timeline covers nothing."""
        here, there = Position.parse(position), Position.parse(fence)
        return here.system == there.system and here.lsn >= there.lsn

    def lag(self) -> StreamLag:
        """See Stream.lag. Also notices what must stop the stream; the next poll raises it."""
        names = self._names

        def ask(session: Connection) -> tuple[SlotFacts | None, str, str | None]:
            facts = read_slot(session, names.slot)
            pid = facts.active_pid if facts else None
            row = session.execute(
                "SELECT sync_state FROM pg_stat_replication WHERE pid = %s", [pid]
            ).fetchone()
            return facts, _digest(session, names.publication), row[0] if row else None

        facts, digest, sync_state = self._asking.run(ask)
        if sync_state not in (None, "async"):
            self._refusal = OperatorNeeded(
                f"our reader counts as a synchronous standby ({sync_state}): commits wait for it",
                hint="Change synchronous_standby_names so that it does not match our "
                "application_name, which begins with 'restructure'.",
            )
        if facts is None:
            return StreamLag(0, 0, False, f"replication slot {names.slot} is gone")
        if not facts.usable:
            reason = facts.invalidation_reason or "its WAL was removed"
            return StreamLag(facts.lag_bytes, facts.retained_bytes, False, f"slot lost: {reason}")
        if not self._closed and digest != self._base.publication:
            self._refusal = _changed_publication(names.publication)
            return StreamLag(
                facts.lag_bytes, facts.retained_bytes, False, self._refusal.message
            )
        return StreamLag(facts.lag_bytes, facts.retained_bytes)

    def close(self) -> None:
        """See Stream.close. Waits until a poll in another thread has returned."""
        self._closed = True
        self._waker.wake()
        with self._reading:
            if self._sender is not None:
                try:
                    self._sender.report(self._confirmed)
                except StreamEnded as ended:
                    log.debug("the stream ended before it was closed: %s", ended.message)
            self._hang_up()
        self._asking.close()
        self._fencing.close()

    # -- one connection

    def _reconnect(self, deadline: float) -> None:
        """Try once to connect, when it is time; note a failure. Returns by ``deadline`` or so."""
        now = time.monotonic()
        if now < self._retry_at:
            self._waker.wait(min(self._retry_at, deadline) - now)
            if time.monotonic() < self._retry_at:
                return
        try:
            self._sender = self._connected()
        except (StreamEnded, Retryable, psycopg.OperationalError) as error:
            self._failed(error)

    def _connected(self) -> Walsender:
        names = self._names
        sender = Walsender(self._dsn, job=names.job, sender_timeout=self._sender_timeout)
        try:
            system = sender.identify()
            if system != self._base.system:
                raise StreamGap(
                    "another cluster or timeline answers than the one this stream began on",
                    hint="After a failover or a restore changes may have been missed: abort the "
                    "job and start it again.",
                )
            facts, digest, next_xid = self._asking.run(self._look)
            require_continuity(facts, names.slot, Lsn(self._confirmed))
            if digest != self._base.publication:
                raise _changed_publication(names.publication)
            if self._assembly is None:
                self._assembly = Assembly(self._watched, self._confirmed, sender.encoding)
            assembly = self._assembly
            assembly.restart(next_xid)
            streaming = assembly.position >= self._replay_until
            sender.start(
                names.slot, names.publication, Lsn(assembly.position), streaming=streaming
            )
            sender.report(self._confirmed)
        except BaseException:
            sender.close()
            raise
        return sender

    def _look(self, session: Connection) -> tuple[SlotFacts | None, str, int]:
        """What the gap rules need; also ends a reader of ours that was left behind."""
        facts = read_slot(session, self._names.slot)
        if facts is not None and facts.active_pid is not None:
            if not facts.read_by(self._names.job):
                raise StreamEnded(
                    f"replication slot {facts.name} is in use by pid {facts.active_pid} "
                    f"({facts.active_application or 'no name'})"
                )
            end(session, facts.active_pid)
            raise StreamEnded(f"our own pid {facts.active_pid} had not let go of the slot")
        row = session.execute(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
        return facts, _digest(session, self._names.publication), row[0] if row else 0

    def _failed(self, error: Exception) -> None:
        """Note a lost or refused connection, and when to try again."""
        reason = _said(error)
        self._hang_up()
        if isinstance(error, StreamEnded) and (error.sqlstate or "").startswith("42"):
            raise OperatorNeeded(f"the server ended the stream: {reason}") from error
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since, self._pause = now, 0.05
        if now - self._failing_since > PATIENCE:
            raise Retryable(f"the stream could not be had back: {reason}") from error
        self._pause = min(self._pause * 2, 5.0)
        self._retry_at = now + self._pause * random.uniform(0.5, 1.0)
        log.warning("stream interrupted, trying again: %s", reason)

    def _hang_up(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    # -- one batch

    def _read(self, sender: Walsender, deadline: float, max_keys: int) -> Batch | None:
        assembly = self._open_assembly()
        read, feed = sender.read, assembly.feed
        drained_at: float | None = None
        countdown = 1
        while True:
            message = read()
            if type(message) is bytes:
                feed(message)
                countdown -= 1
                if countdown > 0:
                    continue
                # One message brings two keys at most.
                countdown = min(_LOOK_UP_EVERY, max(1, (max_keys - assembly.pending) // 2))
                if assembly.pending >= max_keys:
                    return self._cut()
                now = time.monotonic()
                self._report(sender, now, idle=False)
                if now >= deadline and self._worth_giving():
                    return self._cut()
            elif isinstance(message, Keepalive):
                assembly.heard(message.end)
                if message.reply:
                    sender.report(self._confirmed)
            else:
                now = time.monotonic()
                drained_at = drained_at or now
                self._report(sender, now, idle=True)
                if self._ready(now, deadline, drained_at):
                    return self._cut()
                if now >= deadline or self._closed or self._refusal is not None:
                    return None
                self._wait(sender, now, deadline)

    def _ready(self, now: float, deadline: float, drained_at: float) -> bool:
        """Whether to hand out a batch, now that everything on the wire was read."""
        assembly = self._open_assembly()
        if assembly.position > self._delivered:
            self._failing_since = None
            if self._replay_until and assembly.position >= self._replay_until:
                self._replay_until = 0
                self._hang_up()
                return True
        if assembly.pending or assembly.owed:
            patient = now < min(deadline, drained_at + _HALF_TRANSACTION)
            return not (assembly.in_transaction and patient)
        if assembly.position <= self._delivered:
            return False
        fenced = any(fence <= assembly.position for fence in tuple(self._fences))
        return fenced or now - self._given_at >= self._interval

    def _wait(self, sender: Walsender, now: float, deadline: float) -> None:
        until = min(deadline, sender.reported_at + self._interval)
        assembly = self._open_assembly()
        if assembly.position > self._delivered:
            until = min(until, self._given_at + self._interval)
        if assembly.pending and assembly.in_transaction:
            until = min(until, now + _HALF_TRANSACTION)
        sender.wait(until - now, self._waker.descriptor)
        self._waker.clear()

    def _worth_giving(self) -> bool:
        return self._assembly is not None and bool(self._assembly.pending or self._assembly.owed)

    def _cut(self) -> Batch:
        assembly = self._open_assembly()
        batch = assembly.cut(self._base.at(assembly.position))
        self._delivered = assembly.position
        self._given_at = time.monotonic()
        self._fences = [fence for fence in self._fences if fence > assembly.position]
        return batch

    def _report(self, sender: Walsender, now: float, *, idle: bool) -> None:
        """Tell the server how far we are, when it is time or when there is news and leisure.

        A server that is silent for long is asked for a sign of life, then given up.
        """
        silent = now - sender.heard_at
        if idle and silent > 5 * self._sender_timeout:
            raise StreamEnded(f"nothing was heard from the server for {silent:.0f} s")
        due = now - sender.reported_at >= self._interval
        if due or (idle and self._confirmed > sender.reported):
            sender.report(self._confirmed, ask=idle and silent > 2 * self._sender_timeout)

    def _open_assembly(self) -> Assembly:
        if self._assembly is None:
            raise OperatorNeeded("the stream is not open")
        return self._assembly


class _Side:
    """A session beside the stream, for one kind of question; made anew when it is lost."""

    def __init__(self, dsn: str, job: str, role: str) -> None:
        self._dsn, self._job, self._role = dsn, job, role
        self._lock = threading.Lock()
        self._session: Connection | None = None

    def open(self) -> None:
        self.run(lambda session: session.execute("SELECT 1"))

    def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work``; a second time if the session turns out to be lost."""
        with self._lock:
            if self._session is not None and not self._session.closed:
                try:
                    return work(self._session)
                except psycopg.OperationalError:
                    if not self._session.closed:
                        raise
            self._session = connect(self._dsn, job=self._job, role=self._role)
            return work(self._session)

    def close(self) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()
                self._session = None


class _Waker:
    """Ends another thread's wait."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
