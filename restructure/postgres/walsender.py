"""A walsender session: reading a logical slot over libpq, and telling how far we are.

Protocol: https://www.postgresql.org/docs/current/protocol-replication.html. psycopg has no
interface for it, so this file speaks to its libpq wrapper. One thread only.
"""

from __future__ import annotations

import select
import time
from struct import Struct
from typing import Final, NamedTuple

import psycopg
from psycopg import pq, sql

from restructure.errors import OperatorNeeded
from restructure.model.lsn import Lsn
from restructure.postgres.connect import connect_replication
from restructure.postgres.script import raw

_EPOCH: Final = 946_684_800_000_000
"""2000-01-01 UTC, PostgreSQL's own epoch, in microseconds since 1970."""

_XLOG_DATA = ord("w")
_KEEPALIVE = ord("k")
_HEADER: Final = 25
_read_keepalive = Struct(">QqB").unpack_from
_write_status = Struct(">cQQQqB").pack

_SETTINGS = {
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""client_encoding is left alone on purpose: text keys must travel in the encoding in which our
other sessions hand them back, and those do not set it either."""


class System(NamedTuple):
    """Which cluster answers, and on which timeline it writes."""

    identifier: str
    timeline: int


class Keepalive(NamedTuple):
    """Everything committed up to ``end`` was sent. ``reply``: the server wants a status now."""

    end: int
    reply: bool


class StreamEnded(Exception):
    """The server or the network ended the stream. ``sqlstate`` is None for the network."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


class Walsender:
    """One connection that reads one slot."""

    def __init__(self, dsn: str, *, job: str, sender_timeout: float) -> None:
        """Connect. ``sender_timeout`` in seconds is after how long a silence the server gives up.

        Raises as connect_replication does.
        """
        timeout = f"{max(1, round(sender_timeout * 1000))}ms"
        settings = {**_SETTINGS, "wal_sender_timeout": timeout}
        self._connection = connect_replication(dsn, job=job, role="stream", **settings)
        self._pgconn = self._connection.pgconn
        self._poll = select.poll()
        self._poll.register(self._pgconn.socket, select.POLLIN)
        self.pid = self._connection.info.backend_pid
        self.encoding = self._connection.info.encoding
        self.reported = 0
        self.reported_at = 0.0
        self.heard_at = time.monotonic()

    def identify(self) -> System:
        row = self._connection.execute("IDENTIFY_SYSTEM").fetchone()
        if row is None:
            raise StreamEnded("IDENTIFY_SYSTEM gave no answer")
        return System(str(row[0]), int(row[1]))

    def start(self, slot: str, publication: str, after: Lsn, *, streaming: bool) -> None:
        """Ask for everything that commits after ``after``. Raises StreamEnded with the reason.

        ``streaming``: send large transactions in stretches before they commit.
        """
        quoted = sql.Identifier(publication).as_string(self._connection)
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '2', publication_names {},"
            " messages 'true', binary 'true', streaming {})"
        ).format(
            sql.Identifier(slot),
            raw(str(after)),
            sql.Literal(quoted),
            sql.Literal("on" if streaming else "off"),
        )
        result = self._pgconn.exec_(command.as_bytes(self._connection))
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise _ended(result)

    def read(self) -> bytes | Keepalive | None:
        """Return the next pgoutput message or keepalive that is here already, else None.

        Raises StreamEnded when there will be none.
        """
        try:
            size, data = self._pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise StreamEnded(str(error).strip()) from error
        if size > 0:
            if data[0] == _XLOG_DATA:
                return bytes(data[_HEADER:])
            if data[0] == _KEEPALIVE:
                end, _, reply = _read_keepalive(data, 1)
                return Keepalive(end, bool(reply))
            raise OperatorNeeded(f"the walsender sent an unknown message: {chr(data[0])!r}")
        if size == 0:
            return None
        result = self._pgconn.get_result()
        raise _ended(result) if result else StreamEnded("the server ended the stream")

    def wait(self, timeout: float, waker: int) -> None:
        """Wait until bytes arrive, ``waker`` (a file descriptor) is readable, or time is up."""
        try:
            self._pgconn.flush()
            self._poll.register(waker, select.POLLIN)
            ready = self._poll.poll(max(0.0, timeout) * 1000)
            if any(descriptor == self._pgconn.socket for descriptor, _ in ready):
                self._pgconn.consume_input()
                self.heard_at = time.monotonic()
        except psycopg.Error as error:
            raise StreamEnded(str(error).strip()) from error

    def report(self, confirmed: int, *, ask: bool = False) -> None:
        """Send a status: ``confirmed`` and nothing beyond is safe with us.

        All three positions are the same. Telling a later *write* position would make the server
        spare its keepalives, from which an idle table's position comes (WalSndWaitForWal).
        ``ask`` requests a keepalive in return. Never blocks.
        """
        now = time.time_ns() // 1000 - _EPOCH
        status = _write_status(b"r", confirmed, confirmed, confirmed, now, ask)
        try:
            if self._pgconn.put_copy_data(status) == 1:
                self.reported = confirmed
                self.reported_at = time.monotonic()
            self._pgconn.flush()
        except psycopg.Error as error:
            raise StreamEnded(str(error).strip()) from error

    def close(self) -> None:
        """Hang up. The server frees the slot as soon as it notices."""
        self._connection.close()


def _ended(result: pq.abc.PGresult) -> StreamEnded:
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return StreamEnded(
        primary.decode("utf-8", "replace") if primary else "the server ended the stream",
        state.decode() if state else None,
    )
