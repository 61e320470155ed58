"""Where a benchmark runs: a server of its own, and copies of one filled database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks import orders
from restructure.demo.server import Server

_TEMPLATE = "filled"


def settings() -> dict[str, str]:
    """What every server of the benchmarks is started with, beside fsync = on.

    shared_buffers is 2 GB, or a quarter of a smaller machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    buffers = min(2048, memory // 4 // 2**20)
    return {
        "shared_buffers": f"{buffers}MB",
        "min_wal_size": "4GB",
        "max_wal_size": "8GB",
        "maintenance_work_mem": "512MB",
        "checkpoint_timeout": "30min",
        "wal_level": "logical",
        "max_connections": "100",
    }


def environment(dsn: str) -> dict[str, str]:
    """The environment in which libpq's programs go where the DSN leads."""
    words = conninfo_to_dict(dsn)
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER"}
    names |= {"password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {**os.environ, **{names[word]: str(words[word]) for word in names}}


@dataclass(frozen=True, slots=True)
class Place:
    """A running server with a template database in which ``orders`` has ``rows`` rows."""

    server: Server
    rows: int

    @property
    def version(self) -> int:
        return self.server.version

    def dsn(self, database: str) -> str:
        """Superuser, over the Unix socket."""
        return self.server.dsn_of(database, host=str(self.server.socket))

    def program(self, name: str) -> Path:
        """The path of one of PostgreSQL's own programs, of the server's version."""
        return self.server.bin / name

    @contextlib.contextmanager
    def copy(self, name: str) -> Iterator[str]:
        """The DSN of a fresh copy of the filled database, gone afterwards with its slots."""
        with self.admin() as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    sql.Identifier(name), sql.Identifier(_TEMPLATE)
                )
            )
        try:
            yield self.dsn(name)
        finally:
            self._drop(name)

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self.dsn("postgres"), autocommit=True)

    def checkpoint(self) -> None:
        """So that nobody's clock runs while the server writes what came before."""
        with self.admin() as admin:
            admin.execute("CHECKPOINT")

    def warm_up(self) -> None:
        """Touch every shared buffer and fill some WAL, as any server in production has long done.

        A first touch makes the kernel clear a page. Only a writer that goes through all
        buffers would pay for that; ALTER TABLE writes through a small ring of them. And a WAL
        segment that is not a recycled one is first written full of zeros.
        """
        with self.admin() as admin:
            admin.execute("CREATE TABLE ballast (page text)")
            admin.execute("ALTER TABLE ballast ALTER page SET STORAGE PLAIN")
            for _ in range(2):
                admin.execute(
                    "INSERT INTO ballast SELECT repeat('x', current_setting('block_size')::int * 3 / 4)"
                    " FROM generate_series(1, (SELECT setting::int FROM pg_settings WHERE name = 'shared_buffers'))"
                )
            admin.execute("DROP TABLE ballast")
            admin.execute("CHECKPOINT")

    def fill(self) -> None:
        """Make the template."""
        with self.admin() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
        with psycopg.connect(self.dsn(_TEMPLATE), autocommit=True) as session:
            session.execute(orders.SCHEMA)
            session.execute(orders.FILL, (self.rows,))
            session.execute(orders.INDEXES)
            session.execute("VACUUM (ANALYZE, FREEZE) orders")

    def _drop(self, name: str) -> None:
        with self.admin() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
                " WHERE database = %s AND active_pid IS NOT NULL",
                (name,),
            )
            admin.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = %s",
                (name,),
            )
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def open_place(version: int, rows: int) -> Iterator[Place]:
    """Start a server, fill its template, and remove all of it at the end."""
    with Server(version, settings=settings(), fsync=True) as server:
        place = Place(server, rows)
        place.fill()
        place.warm_up()
        yield place
