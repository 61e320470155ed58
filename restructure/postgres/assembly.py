"""Decoded transactions put together into batches of dirty keys. No input or output here."""

from __future__ import annotations

from restructure.model.change import Batch, Origin, Segment, Truncation
from restructure.model.relation import Watched
from restructure.postgres.pgoutput import (
    Begin,
    Commit,
    Decoder,
    Event,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
)

_XIDS = 1 << 32
_HALF = 1 << 31


class ReplayWhole(Exception):
    """A transaction that was streamed before its commit truncated a watched relation.

    Whether it would commit was not known when its keys were handed over, so the truncation
    could not be. The stream must be read again from the last position with streaming off, up to
    ``end_lsn``: then truncation and keys come in their order, and the server, not we, holds
    the transaction until then.
    """

    def __init__(self, end_lsn: int) -> None:
        super().__init__(end_lsn)
        self.end_lsn = end_lsn


class Assembly:
    """What was received and not yet taken, and how far that reaches.

    ``position`` is an LSN: everything committed up to it was fed in. Memory is bounded by what
    is taken away with :meth:`cut`, however large a transaction is.
    """

    def __init__(self, watched: Watched, position: int) -> None:
        self.position = position
        self.committed: int | None = None
        self.in_transaction = False
        self.owed = False
        """A transaction with watched keys was completed since the last cut."""
        self._watched = watched
        self._oids = frozenset(relation.oid for relation in watched.relations)
        self._segments = [Segment()]
        self._keys = self._segments[0].keys
        self._earlier = 0
        self.restart(0)

    def restart(self, next_xid: int, encoding: str = "utf-8") -> None:
        """Begin a new connection: the server starts again after ``position``.

        ``next_xid`` is a 64-bit transaction id near the present one; the 32 bits that the
        protocol carries are completed from it. ``encoding`` is that of names on the wire. Keys
        of a transaction cut short stay: they come again, which is harmless.
        """
        self._decoder = Decoder(self._watched, encoding)
        self._near = next_xid
        self._origin: Origin | None = None
        self._touched = False
        self._streams: dict[int, Origin] = {}
        self._truncated: dict[int, set[int]] = {}
        self.in_transaction = False

    @property
    def pending(self) -> int:
        """Keys and truncations that wait to be cut."""
        return self._earlier + len(self._keys) + len(self._segments[-1].truncations)

    def feed(self, message: bytes) -> None:
        """Take in one message. Raises as Decoder.decode does, and ReplayWhole."""
        event = self._decoder.decode(message)
        if type(event) is list:
            origin = self._origin
            if origin is not None:
                keys = self._keys
                for key in event:
                    keys[key] = origin
                self._touched = True
        elif type(event) is Begin:
            self._begin(*event)
        elif type(event) is Commit:
            self._end(*event)
        else:
            self._turn(event)

    def heard(self, wal_end: int) -> None:
        """The server says that it has sent everything committed up to ``wal_end``."""
        if not self.in_transaction and wal_end > self.position:
            self.position = wal_end

    def cut(self, position: str) -> Batch:
        """Take away everything received, labelled with ``position``, our position as text."""
        segments = [s for s in self._segments if s.keys or s.truncations]
        self._segments = [Segment()]
        self._keys = self._segments[0].keys
        self._earlier = 0
        self.owed = False
        return Batch(position, segments, self.committed)

    def _begin(self, commit_lsn: int, committed: int, xid: int) -> None:
        self.in_transaction = True
        self._touched = False
        # Positions lie between records, so a commit record that starts before ours
        # also ends at or before it: that transaction was delivered. Its truncations
        # must not come a second time, after keys that will not come again.
        replayed = commit_lsn < self.position
        self._origin = None if replayed else Origin(self._widen(xid), committed)

    def _end(self, _: int, end_lsn: int, committed: int) -> None:
        self._complete(end_lsn, committed, self._touched)
        self._origin = None
        self.in_transaction = False

    def _turn(self, event: Event) -> None:
        """Everything rarer than a row and the two ends of its transaction."""
        match event:
            case StreamStart(xid, _):
                self.in_transaction = True
                if xid not in self._streams:
                    self._streams[xid] = Origin(self._widen(xid), None)
                self._origin = self._streams[xid]
            case StreamStop():
                self._origin = None
                self.in_transaction = False
            case StreamCommit(xid, _, end_lsn, committed):
                self._streams.pop(xid, None)
                if self._truncated.pop(xid, None) and end_lsn > self.position:
                    raise ReplayWhole(end_lsn)
                self._complete(end_lsn, committed, True)
            case StreamAbort(xid, subxid):
                if xid == subxid:
                    self._streams.pop(xid, None)
                    self._truncated.pop(xid, None)
                else:
                    self._truncated.get(xid, set()).discard(subxid)
            case Truncate(subxid, relations):
                self._truncate(subxid, [oid for oid in relations if oid in self._oids])

    def _complete(self, end_lsn: int, committed: int, touched: bool) -> None:
        if end_lsn > self.position:
            self.position = end_lsn
            self.committed = committed
            self.owed = self.owed or touched

    def _truncate(self, subxid: int, relations: list[int]) -> None:
        origin = self._origin
        if origin is None or not relations:
            return
        if origin.committed is None:
            top = origin.xid % _XIDS
            self._truncated.setdefault(top, set()).add(subxid)
            return
        self._touched = True
        if self._keys:
            self._earlier = self.pending
            self._segments.append(Segment())
            self._keys = self._segments[-1].keys
        self._segments[-1].truncations += [Truncation(oid, origin) for oid in relations]

    def _widen(self, xid: int) -> int:
        """Complete a 32-bit transaction id to the 64-bit one nearest to what was seen last."""
        near = self._near
        wide = near + (xid - near + _HALF) % _XIDS - _HALF
        if wide > near:
            self._near = wide
        return wide
