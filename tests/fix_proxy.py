"""A TCP proxy between the tool and the server, to cut, delay or deafen its connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

_BLOCK = 65536


class Proxy:
    """Passes bytes between clients and ``dsn``'s server until told otherwise.

    ``dsn`` leads through it. All methods act at once on open connections and on later ones.
    """

    def __init__(self, dsn: str) -> None:
        words = conninfo_to_dict(dsn)
        self._server = (str(words["host"]), int(str(words["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._hearing = threading.Event()
        self._hearing.set()
        self._holding = threading.Event()
        self._open = True
        self._refusing = False
        self._delay = 0.0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        port = self._listener.getsockname()[1]
        self.dsn = make_conninfo("", **{**words, "host": "127.0.0.1", "port": port})
        self._start(self._accept)

    def cut(self) -> None:
        """Break every open connection, as a dying network does; new ones are taken."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Take no new connection, until :meth:`heal`."""
        self._refusing = True

    def deafen(self) -> None:
        """Keep connections open but pass nothing on, in either direction, until :meth:`heal`."""
        self._holding.clear()
        self._hearing.clear()

    def wait_until_holding(self) -> None:
        """Wait until something was sent that a deaf proxy keeps back."""
        if not self._holding.wait(60):
            raise TimeoutError("nobody sent anything through the deaf proxy")

    def delay(self, seconds: float) -> None:
        """Hold every block of bytes for so long; 0 ends it."""
        self._delay = seconds

    def heal(self) -> None:
        """Pass everything on again, what was held included."""
        self._refusing = False
        self._delay = 0.0
        self._hearing.set()

    def open_connections(self) -> int:
        """How many connections go through it now."""
        with self._lock:
            return len(self._pairs)

    def close(self) -> None:
        """Break everything and join the threads."""
        self._open = False
        self.heal()
        # Closing a listener wakes nobody who waits in accept: a connection does.
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname()).close()
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *words: object) -> None:
        thread = threading.Thread(target=target, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while self._open:
            client, _ = self._listener.accept()
            if self._refusing or not self._open:
                client.close()
                continue
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue
            pair = (client, server)
            for end in pair:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append(pair)
            self._start(self._serve, pair)

    def _serve(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        self._pass_on(client, server)
        back.join()
        with self._lock, contextlib.suppress(ValueError):
            self._pairs.remove(pair)
        client.close()
        server.close()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK):
                if self._delay:
                    threading.Event().wait(self._delay)
                if not self._hearing.is_set():
                    self._holding.set()
                    self._hearing.wait()
                target.sendall(block)
        # A deaf network does not tell that the other side has hung up either.
        self._hearing.wait()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(database: str) -> Iterator[Proxy]:
    """A proxy in front of ``database``; ``proxy.dsn`` leads through it."""
    between = Proxy(database)
    try:
        yield between
    finally:
        between.close()
