"""Servers and databases: real ones, one cluster per version and test process, started when needed.

``server`` runs a test on PostgreSQL 15 and 18; with the marker ``every_version`` on 16 and 17 too,
where they are found. ``pytest --pg 18,15`` or RESTRUCTURE_TEST_PG choose others.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from psycopg import sql

from restructure.demo.binaries import SUPPORTED, find_binaries
from restructure.demo.server import Server

USUAL = (15, 18)

_QUIET = {"autovacuum_naptime": "1d", "jit": "off"}
"""No autovacuum comes by chance: its transactions and locks would be in what a test looks at.

Just-in-time compilation, where a server has it, takes seconds for what pg_dump asks; the tool's own
sessions switch it off themselves.
"""

FreshServer = Callable[..., Server]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pg", metavar="18,15", help="PostgreSQL versions to test on")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "pg_version" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--pg") or os.environ.get("RESTRUCTURE_TEST_PG", "")
    found = find_binaries()
    if chosen:
        versions = tuple(int(word) for word in chosen.replace(",", " ").split())
        missing = [version for version in versions if version not in found]
        if missing:
            raise pytest.UsageError(f"PostgreSQL {missing} is not among those found: {[*found]}")
    elif metafunc.definition.get_closest_marker("every_version"):
        versions = tuple(v for v in SUPPORTED if v in found or v in USUAL)
    else:
        versions = USUAL
    limit = metafunc.definition.get_closest_marker("pg_at_least")
    least = limit.args[0] if limit else 0
    metafunc.parametrize(
        "pg_version",
        [_param(version, version in found) for version in versions if version >= least],
        indirect=True,
        scope="session",
    )


def _param(version: int, found: bool) -> object:
    reason = f"PostgreSQL {version} is not on this machine (PG_BIN_{version} may name its folder)"
    marks = [] if found else [pytest.mark.skip(reason=reason)]
    return pytest.param(version, id=f"pg{version}", marks=marks)


@pytest.fixture(scope="session")
def pg_version(request: pytest.FixtureRequest) -> int:
    """The major version that this run of the test is for."""
    version: int = request.param
    return version


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Callable[[int], Server]]:
    """Return the shared server of a version, starting it the first time."""
    servers: dict[int, Server] = {}
    with ExitStack() as stack:

        def running(version: int) -> Server:
            if version not in servers:
                servers[version] = stack.enter_context(Server(version, settings=_QUIET))
            return servers[version]

        yield running


@pytest.fixture(scope="session")
def server(running_servers: Callable[[int], Server], pg_version: int) -> Server:
    """A shared server. What a test makes on it outside ``database`` it must remove itself."""
    return running_servers(pg_version)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """The DSN of a fresh, empty database; it goes, with its slots and the test's new roles."""
    with fresh_database(server) as dsn:
        yield dsn


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """An autocommit session on ``database``."""
    with psycopg.connect(database, autocommit=True) as session:
        yield session


@pytest.fixture
def fresh_server(pg_version: int) -> Iterator[FreshServer]:
    """``fresh_server(wal_level="replica")``: a cluster of the test's own, for it to crash."""
    with ExitStack() as stack:

        def make(*, fsync: bool = False, **settings: str) -> Server:
            return stack.enter_context(Server(pg_version, settings=settings, fsync=fsync))

        yield make


@contextmanager
def fresh_database(server: Server) -> Iterator[str]:
    """Make a database on a server; afterwards drop it with all that would keep it alive."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        roles = _roles(admin)
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.dsn_of(name)
    finally:
        with psycopg.connect(server.dsn_of(name), autocommit=True) as inside:
            _free(inside)
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            _drop(admin, name)
            for role in _roles(admin) - roles:
                admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def _free(inside: psycopg.Connection) -> None:
    """Prepared transactions and subscriptions make even DROP DATABASE … FORCE refuse."""
    for (gid,) in inside.execute(
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
    ).fetchall():
        inside.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    for (name,) in inside.execute(
        "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
        " WHERE d.datname = current_database()"
    ).fetchall():
        subscription = sql.Identifier(name)
        inside.execute(sql.SQL("ALTER SUBSCRIPTION {} DISABLE").format(subscription))
        inside.execute(sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(subscription))
        inside.execute(sql.SQL("DROP SUBSCRIPTION {}").format(subscription))


def _drop(admin: psycopg.Connection, name: str) -> None:
    """The server gives those whom it ends 5 s to go, which on a busy machine may be too few."""
    for left in reversed(range(12)):
        _drop_slots(admin, name)
        try:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            return
        except psycopg.errors.ObjectInUse:
            if not left:
                raise


def _drop_slots(admin: psycopg.Connection, name: str) -> None:
    for _ in range(600):
        slots = admin.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = %s", [name]
        ).fetchall()
        if not slots:
            return
        for slot, reader in slots:
            if reader is not None:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [reader])
                continue
            try:
                admin.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            except (psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                continue
    raise AssertionError(f"slots of database {name} could not be dropped")


def _roles(admin: psycopg.Connection) -> set[str]:
    return {name for (name,) in admin.execute("SELECT rolname FROM pg_roles").fetchall()}
