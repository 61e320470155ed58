"""Reading a slot without end: waiting, reconnecting, and deciding when a batch is worth giving."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from restructure.errors import OperatorNeeded, Retryable
from restructure.model.change import Batch
from restructure.model.lsn import Lsn
from restructure.model.relation import Watched
from restructure.postgres.assembly import Assembly, ReplayWhole
from restructure.postgres.waker import Waker
from restructure.postgres.walsender import Keepalive, StreamEnded, System, Walsender

log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds without a working connection after which a reader gives up with Retryable."""

_PROVEN = 10.0
"""Seconds after which a connection counts as a working one."""

_LONGEST_INTERVAL = 10.0
"""Seconds between status reports, and between positions handed out while nothing happens."""

_GATHER = 0.01
"""Seconds to wait for more once something is there: each batch costs its taker a commit."""

_REST_OF_TRANSACTION = 0.05
"""The same, while the end of a transaction is still to come."""

_LOOK_UP_EVERY = 512
"""Messages between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What to read, and for whom.

    ``admit`` is asked at every connection with the cluster that answered: it raises StreamGap if
    changes were lost, StreamEnded if this is not the moment, and else returns a 64-bit transaction
    id near the present one. ``label`` makes a position's text from its LSN.
    """

    dsn: str
    job: str
    slot: str
    publication: str
    watched: Watched
    sender_timeout: float
    admit: Callable[[System], int]
    label: Callable[[int], str]


class SlotReader:
    """One slot, read from ``start`` on. ``poll`` and ``keepalive`` belong to one thread."""

    def __init__(self, reading: Reading, start: Lsn) -> None:
        self._reading = reading
        self._interval = min(_LONGEST_INTERVAL, reading.sender_timeout / 3)
        self._assembly = Assembly(reading.watched, start)
        self._sender: Walsender | None = None
        self._waker = Waker()
        self._stopped = False
        self._refusal: OperatorNeeded | None = None
        self.confirmed = int(start)
        self._delivered = int(start)
        self._fence = 0
        self._replay_until = 0
        self._failing_since: float | None = None
        self._pause = 0.0
        self._connected_at: float | None = None
        self._retry_at = self._given_at = self._drained_at = time.monotonic()

    # -- from any thread

    def confirm(self, lsn: int) -> None:
        """All up to ``lsn`` is durable. Raises ValueError beyond what poll has returned."""
        if lsn > self._delivered:
            raise ValueError(f"{Lsn(lsn)} was not delivered yet")
        self.confirmed = max(self.confirmed, lsn)
        self._waker.wake()

    def expect(self, fence: int) -> None:
        """Hand out a batch as soon as ``fence`` is reached, even an empty one."""
        self._fence = fence
        self._waker.wake()

    def refuse(self, refusal: OperatorNeeded) -> None:
        """Let the present or next poll raise ``refusal``."""
        self._refusal = refusal
        self._waker.wake()

    def stop(self) -> None:
        """Let the present and every later poll return None at once."""
        self._stopped = True
        self._waker.wake()

    # -- from the reading thread

    def connect(self) -> None:
        """Connect, trying for PATIENCE seconds. Raises StreamGap, OperatorNeeded or Retryable."""
        while self._sender is None and not self._stopped:
            self._reconnect(time.monotonic() + PATIENCE)

    def poll(self, timeout: float, max_keys: int) -> Batch | None:
        """See restructure.ports.Stream.poll. After an OperatorNeeded it raises that for ever."""
        deadline = time.monotonic() + timeout
        try:
            while not self._stopped:
                if self._refusal is not None:
                    raise self._refusal
                try:
                    if self._sender is None:
                        self._reconnect(deadline)
                    if self._sender is not None:
                        return self._read(self._sender, deadline, max_keys)
                except ReplayWhole as replay:
                    log.info("a large transaction truncated a table: reading it again in order")
                    self._replay_until = replay.end_lsn
                    self._hang_up()
                except StreamEnded as ended:
                    self._failed(ended)
                if time.monotonic() >= deadline:
                    assembly = self._assembly
                    return self._cut() if assembly.pending or assembly.owed else None
        except OperatorNeeded as refusal:
            self._refusal = refusal
            self._hang_up()
            raise
        return None

    def keepalive(self) -> None:
        """Report to the server if it is time; a reader that does not read must still do that."""
        if self._sender is not None:
            try:
                self._report(self._sender, time.monotonic(), idle=False)
            except StreamEnded as ended:
                self._failed(ended)

    def close(self) -> None:
        """Report a last time and hang up. No poll may be running."""
        if self._sender is not None:
            with suppress(StreamEnded):  # then the server keeps a little more WAL, nothing else
                self._sender.report(self.confirmed)
        self._hang_up()
        self._waker.close()

    # -- one connection

    def _reconnect(self, deadline: float) -> None:
        """Try once to connect, when it is time. Waits for that until ``deadline`` at most."""
        now = time.monotonic()
        if now < self._retry_at:
            self._waker.wait(min(self._retry_at, deadline) - now)
            if time.monotonic() < self._retry_at:
                return
        try:
            self._sender = self._connected()
            self._connected_at = time.monotonic()
        except (StreamEnded, Retryable, psycopg.OperationalError) as error:
            self._failed(error)

    def _connected(self) -> Walsender:
        reading, assembly = self._reading, self._assembly
        sender = Walsender(reading.dsn, job=reading.job, sender_timeout=reading.sender_timeout)
        try:
            next_xid = reading.admit(sender.identify())
            assembly.restart(next_xid, sender.encoding)
            sender.start(
                reading.slot,
                reading.publication,
                Lsn(assembly.position),
                streaming=assembly.position >= self._replay_until,
            )
            sender.report(self.confirmed)
        except BaseException:
            sender.close()
            raise
        return sender

    def _failed(self, error: Exception) -> None:
        """Note a lost or refused connection and when to try again.

        Raises OperatorNeeded where the server says that what we ask for is wrong (SQLSTATE
        class 42, such as a missing publication), Retryable when it has lasted too long.
        """
        self._hang_up()
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if isinstance(error, StreamEnded) and (error.sqlstate or "").startswith("42"):
            raise OperatorNeeded(f"the server ended the stream: {reason}") from error
        now = time.monotonic()
        proven = self._connected_at is not None and now - self._connected_at > _PROVEN
        if self._failing_since is None or proven:
            self._failing_since, self._pause = now, 0.05
        self._connected_at = None
        if now - self._failing_since > PATIENCE:
            raise Retryable(f"the stream could not be had back: {reason}") from error
        self._pause = min(self._pause * 2, 5.0)
        self._retry_at = now + self._pause * random.uniform(0.5, 1.0)
        log.warning("the stream was interrupted and is tried again: %s", reason)

    def _hang_up(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    # -- one batch

    def _read(self, sender: Walsender, deadline: float, max_keys: int) -> Batch | None:
        assembly = self._assembly
        read, feed = sender.read, assembly.feed
        if time.monotonic() - self._drained_at > self._interval:
            sender.heard_at = time.monotonic()  # it was we who did not listen
        first_drained: float | None = None
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
                if now >= deadline and (assembly.pending or assembly.owed):
                    return self._cut()
            elif isinstance(message, Keepalive):
                assembly.heard(message.end)
                if message.reply:
                    sender.report(self.confirmed)
            else:
                self._drained_at = now = time.monotonic()
                first_drained = first_drained or now
                self._report(sender, now, idle=True)
                wait_until = self._not_before(now, first_drained + _GATHER)
                something = assembly.pending or assembly.owed
                if wait_until <= now or (something and now >= deadline):
                    return self._cut()
                if now >= deadline or self._stopped or self._refusal is not None:
                    return None
                wait_until = min(wait_until, deadline, sender.reported_at + self._interval)
                sender.wait(wait_until - now, self._waker.descriptor)
                self._waker.clear()

    def _not_before(self, now: float, gathered: float) -> float:
        """When a batch should be given, now that everything on the wire was read."""
        assembly = self._assembly
        if self._delivered < self._fence <= assembly.position:
            return now
        if 0 < self._replay_until <= assembly.position:
            # The transaction that had to come whole has come: stream large ones again.
            self._replay_until = 0
            self._hang_up()
            return now
        if assembly.pending or assembly.owed:
            return gathered + (_REST_OF_TRANSACTION if assembly.in_transaction else 0.0)
        if assembly.position > self._delivered:
            return self._given_at + self._interval
        return float("inf")

    def _cut(self) -> Batch:
        assembly = self._assembly
        batch = assembly.cut(self._reading.label(assembly.position))
        self._delivered = assembly.position
        self._given_at = time.monotonic()
        return batch

    def _report(self, sender: Walsender, now: float, *, idle: bool) -> None:
        """Tell the server how far we are, when it is time, or when there is news and leisure.

        A server that stays silent is asked for a sign of life and at last given up.
        """
        silent = now - sender.heard_at if idle else 0.0
        if silent > 5 * self._reading.sender_timeout:
            raise StreamEnded(f"nothing was heard from the server for {silent:.0f} s")
        due = now - sender.reported_at >= self._interval
        if due or (idle and self.confirmed > sender.reported):
            sender.report(self.confirmed, ask=silent > 2 * self._reading.sender_timeout)
