"""The pgoutput protocol, versions 1 and 2, decoded without input or output.

Message formats: https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
and src/backend/replication/logical/proto.c. Only the key of a row is looked at. With ``binary``
switched on, a column travels as its length and the bytes of its type's send function, which is
also how COPY BINARY writes a field: a key is cut out of the message and never decoded.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Final, NamedTuple

from restructure.errors import OperatorNeeded, SchemaDrift
from restructure.model.relation import Watched
from restructure.postgres.key_cut import ADVICE, KeyCut, Keys


class Begin(NamedTuple):
    """A whole transaction follows. ``commit_lsn`` is where its commit record starts."""

    commit_lsn: int
    committed: int
    xid: int


class Commit(NamedTuple):
    """The transaction is complete. ``end_lsn`` is where its commit record ends."""

    commit_lsn: int
    end_lsn: int
    committed: int


class StreamStart(NamedTuple):
    """A stretch of a transaction follows that has not committed yet."""

    xid: int
    first: bool


class StreamStop(NamedTuple):
    """The stretch ends; more of the same transaction may come later."""


class StreamCommit(NamedTuple):
    xid: int
    commit_lsn: int
    end_lsn: int
    committed: int


class StreamAbort(NamedTuple):
    """Rolled back: a subtransaction, or all of it where ``subxid`` equals ``xid``."""

    xid: int
    subxid: int


class Truncate(NamedTuple):
    """TRUNCATE of several relations. ``xid`` may be a subtransaction; 0 outside a stretch."""

    xid: int
    relations: tuple[int, ...]


class Ignored(NamedTuple):
    """A message that concerns no key: Origin, Type, Message, Relation."""

    kind: str


Event = (
    Keys
    | Begin
    | Commit
    | StreamStart
    | StreamStop
    | StreamCommit
    | StreamAbort
    | Truncate
    | Ignored
)

_ROWS: Final = frozenset(b"IUD")

_SHORT = Struct(">H").unpack_from
_INT = Struct(">I").unpack_from
_BEGIN = Struct(">QqI").unpack_from
_COMMIT = Struct(">BQQq").unpack_from
_STREAM_COMMIT = Struct(">IBQQq").unpack_from
_STREAM_START = Struct(">IB").unpack_from
_STREAM_ABORT = Struct(">II").unpack_from


class Decoder:
    """Turns messages into events. It remembers relations and whether a stretch is open."""

    def __init__(self, watched: Watched, encoding: str = "utf-8") -> None:
        self._watched = {relation.oid: str(relation) for relation in watched.relations}
        self._key = [(c.name.encode(encoding, "replace"), c.type_oid) for c in watched.key]
        self._names = [column.name for column in watched.key]
        self._cuts: dict[bytes, KeyCut] = {}
        self._body = 1
        """Where a message's own fields start: after its kind, in a stretch also after an xid."""

    def decode(self, message: bytes) -> Event:
        """Read one message.

        Raises OperatorNeeded for a kind of message or of column that this protocol does not
        have, or a key that cannot be read; SchemaDrift where a key column is gone.
        """
        try:
            if message[0] in _ROWS:
                body = self._body
                cut = self._cuts.get(message[body : body + 4])
                if cut is None:
                    return self._without_cut(message)
                return cut.keys(message, body + 4)
            read = _READERS.get(message[0])
            if read is not None:
                return read(self, message)
        except (error, IndexError, ValueError) as malformed:
            raise OperatorNeeded(
                f"the server sent a malformed message of kind {chr(message[0])!r}", hint=ADVICE
            ) from malformed
        raise OperatorNeeded(
            f"the server sent an unknown kind of message: {chr(message[0])!r}", hint=ADVICE
        )

    def _without_cut(self, message: bytes) -> Keys:
        (oid,) = _INT(message, self._body)
        if oid in self._watched:
            raise OperatorNeeded(
                f"the server sent a row of {self._watched[oid]} without describing it", hint=ADVICE
            )
        return []

    def _begin(self, message: bytes) -> Event:
        return Begin(*_BEGIN(message, 1))

    def _commit(self, message: bytes) -> Event:
        _, commit_lsn, end_lsn, committed = _COMMIT(message, 1)
        return Commit(commit_lsn, end_lsn, committed)

    def _stream_start(self, message: bytes) -> Event:
        self._body = 5
        xid, first = _STREAM_START(message, 1)
        return StreamStart(xid, bool(first))

    def _stream_stop(self, message: bytes) -> Event:
        self._body = 1
        return StreamStop()

    def _stream_commit(self, message: bytes) -> Event:
        xid, _, commit_lsn, end_lsn, committed = _STREAM_COMMIT(message, 1)
        return StreamCommit(xid, commit_lsn, end_lsn, committed)

    def _stream_abort(self, message: bytes) -> Event:
        return StreamAbort(*_STREAM_ABORT(message, 1))

    def _truncate(self, message: bytes) -> Event:
        body = self._body
        (count,) = _INT(message, body)
        oids = Struct(f">{count}I").unpack_from(message, body + 5)
        return Truncate(_INT(message, 1)[0] if body > 1 else 0, oids)

    def _relation(self, message: bytes) -> Event:
        body = self._body
        (oid,) = _INT(message, body)
        if oid in self._watched:
            after_schema = message.index(0, body + 4) + 1
            after_name = message.index(0, after_schema) + 1
            columns = _columns(message, after_name + 1)
            self._cuts[message[body : body + 4]] = self._cut(self._watched[oid], columns)
        return Ignored("R")

    def _cut(self, relation: str, columns: list[tuple[bytes, int]]) -> KeyCut:
        places = []
        for label, (name, type_oid) in zip(self._names, self._key, strict=True):
            place = next((i for i, column in enumerate(columns) if column[0] == name), None)
            if place is None:
                raise SchemaDrift(
                    f"key column {label} of {relation} is no longer in the stream",
                    hint="It was dropped or renamed, or the publication was changed.",
                )
            if columns[place][1] != type_oid:
                raise SchemaDrift(f"key column {label} of {relation} has another type than before")
            places.append(place)
        return KeyCut(relation, tuple(self._names), tuple(places), len(columns))

    def _ignored(self, message: bytes) -> Event:
        return Ignored(chr(message[0]))


_READERS = {
    ord("B"): Decoder._begin,
    ord("C"): Decoder._commit,
    ord("R"): Decoder._relation,
    ord("T"): Decoder._truncate,
    ord("S"): Decoder._stream_start,
    ord("E"): Decoder._stream_stop,
    ord("c"): Decoder._stream_commit,
    ord("A"): Decoder._stream_abort,
    ord("O"): Decoder._ignored,
    ord("Y"): Decoder._ignored,
    ord("M"): Decoder._ignored,
}


def _columns(message: bytes, at: int) -> list[tuple[bytes, int]]:
    """Name and type of each published column of a Relation message."""
    (count,) = _SHORT(message, at)
    at += 2
    columns = []
    for _ in range(count):
        end = message.index(0, at + 1)
        columns.append((message[at + 1 : end], _INT(message, end + 1)[0]))
        at = end + 9
    return columns
