"""A pooler in transaction mode, as small as one can be: it lends server sessions by transaction."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_ENCRYPTION = {80877103, 80877104}  # SSLRequest, GSSENCRequest: declined with one byte


class FakePooler:
    """``dsn`` leads through it. With ``by_transaction=False`` a client keeps its server session.

    It lends the session that rested longest: with one, two clients meet in it, with more each
    client moves from one to the next.
    """

    def __init__(self, dsn: str, *, sessions: int = 2, by_transaction: bool = True) -> None:
        self._servers = [psycopg.connect(dsn, autocommit=True) for _ in range(sessions)]
        self._free = list(self._servers)
        self._changed = threading.Condition()
        self._by_transaction = by_transaction
        self._listener = socket.create_server(("127.0.0.1", 0))
        words = conninfo_to_dict(dsn)
        port = self._listener.getsockname()[1]
        self.dsn = make_conninfo("", **{**words, "host": "127.0.0.1", "port": port})
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        for server in self._servers:
            server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=[client])
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        lent: psycopg.Connection | None = None
        with client, contextlib.suppress(EOFError, ConnectionError):
            if not self._greet(client):
                return
            while True:
                request = _request(client)
                lent = lent or self._borrow()
                ready = _exchange(client, lent, request)
                if ready.endswith(b"I") and self._by_transaction:
                    # First of all: who was answered may ask again, and would be lent another one.
                    self._give_back(lent)
                    lent = None
                client.sendall(ready)
        if lent is not None:
            self._give_back(lent)

    def _greet(self, client: socket.socket) -> bool:
        """Answer the start of a client; whether it may go on."""
        while True:
            (length,) = struct.unpack("!i", _exactly(client, 4))
            body = _exactly(client, length - 4)
            if struct.unpack("!i", body[:4])[0] not in _ENCRYPTION:
                break
            client.sendall(b"N")
        if b"replication\0" in body:
            client.sendall(
                _framed(b"E", b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter\0\0")
            )
            return False
        version = str(self._servers[0].info.parameter_status("server_version")).encode()
        client.sendall(
            _framed(b"R", struct.pack("!i", 0))
            + _framed(b"S", b"server_version\0" + version + b"\0")
            + _framed(b"S", b"client_encoding\0UTF8\0")
            + _framed(b"S", b"standard_conforming_strings\0on\0")
            + _framed(b"K", struct.pack("!ii", 1, 1))
            + _framed(b"Z", b"I")
        )
        return True

    def _borrow(self) -> psycopg.Connection:
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            return self._free.pop(0)

    def _give_back(self, server: psycopg.Connection) -> None:
        with self._changed:
            self._free.append(server)
            self._changed.notify()


def _request(client: socket.socket) -> bytes:
    """Everything up to the end of one question: a simple query, or a Sync."""
    parts = b""
    while True:
        kind, message = _message(client)
        if kind == b"X":
            raise EOFError
        parts += message
        if kind in (b"Q", b"S"):
            return parts


def _exchange(client: socket.socket, server: psycopg.Connection, request: bytes) -> bytes:
    """Pass a question on and its answer back, but for the last message: it tells the state."""
    with socket.socket(fileno=socket.dup(server.fileno())) as line:
        line.setblocking(True)
        line.sendall(request)
        while True:
            kind, message = _message(line)
            if kind == b"Z":
                return message
            client.sendall(message)


def _message(line: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(line, 5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + _exactly(line, length - 4)


def _exactly(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = line.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
