"""Connections: how every session of ours is opened, named and kept from the role's own settings."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from restructure.errors import Retryable, UsageError

Connection = psycopg.Connection[TupleRow]

APPLICATION = "restructure"

REVERSE_SETTING = "restructure.reverse"
"""Tells the tripwire on a retired table that a session is one of ours."""

_SESSION = {
    REVERSE_SETTING: "on",
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "synchronous_commit": "local",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "default_tablespace": "",
    "jit": "off",
}
"""What a role or a database may have set otherwise, and what we cannot live with.

row_security off turns silent filtering of our copy into an error; a repeatable-read
default would give the cutover a snapshot from before its lock; synchronous_commit stays local
because our own stream may be what a synchronous commit waits for, which would never end;
jit would compile for 300 ms what runs for 3, under the swap's lock.
They travel in the start-up packet: a statement_timeout of the role could cut off a SET.
"""

_FOR_GOOD = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
)
"""What an English-speaking server says of a DSN that no second try makes right; libpq passes no SQLSTATE on."""

_BY_A_POOLER = "unsupported startup parameter"
"""PgBouncer's answer to the settings that our sessions begin with."""

_KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "connect_timeout": 10,
}


def application_name(job: str, role: str) -> str:
    """The name by which one of our sessions is known in pg_stat_activity.

    Cut to 63 bytes as the server would do itself.
    """
    return f"{APPLICATION} {job} {role}"[:63]


def connect(dsn: str, *, job: str = "-", role: str = "main", autocommit: bool = True) -> Connection:
    """Open a session for ``role`` ("copy 1", "apply 2", "cutover" …) of ``job``.

    Raises UsageError where the DSN itself is wrong, Retryable where the server does not
    answer. Neither shows the password.
    """
    try:
        conninfo = _conninfo(dsn, application_name(job, role), options=_options(_SESSION))
        connection = psycopg.connect(conninfo, autocommit=True)
    except psycopg.ProgrammingError as error:
        raise UsageError(
            "the connection string is not one that PostgreSQL understands",
            hint="Use postgresql://user@host:port/database or key=value words.",
        ) from error
    except psycopg.OperationalError as error:
        if _BY_A_POOLER in str(error):
            raise UsageError(
                f"cannot connect: {_first_line(error)}: this is what a pooler says",
                hint="Give the server's own address: a pooler's port is often 6432 or 6543. "
                + describe(dsn),
            ) from error
        if any(word in str(error) for word in _FOR_GOOD):
            raise UsageError(f"cannot connect: {_first_line(error)}", hint=describe(dsn)) from error
        raise Retryable(f"cannot connect: {_first_line(error)}", hint=describe(dsn)) from error
    if connection.info.server_version >= 170000:
        connection.execute("SET transaction_timeout = 0")
    with contextlib.suppress(psycopg.DatabaseError):
        # a backend whose client was killed notices within a statement, not after it; Linux servers only
        connection.execute("SET client_connection_check_interval = '1s'")
    connection.autocommit = autocommit
    return connection


def connect_replication(dsn: str, *, job: str, role: str, **settings: str) -> Connection:
    """Open a walsender session on the DSN's database, with server ``settings`` for it.

    Raises as :func:`connect` does.
    """
    conninfo = _conninfo(
        dsn, application_name(job, role), replication="database", options=_options(settings)
    )
    try:
        return psycopg.connect(conninfo, autocommit=True)
    except psycopg.OperationalError as error:
        raise Retryable(
            f"cannot open a replication connection: {_first_line(error)}", hint=describe(dsn)
        ) from error


def describe(dsn: str) -> str:
    """Where a DSN leads, without its password."""
    words = conninfo_to_dict(dsn)
    words.pop("password", None)
    shown = " ".join(
        f"{name}={words[name]}" for name in ("host", "port", "dbname", "user") if words.get(name)
    )
    return f"Tried {shown}." if shown else "Tried libpq's own defaults and PG* variables."


def _options(settings: Mapping[str, str]) -> str:
    """Settings as words of libpq's ``options``, in which a backslash protects a space."""
    return " ".join(
        "-c {}={}".format(name, value.replace("\\", "\\\\").replace(" ", "\\ "))
        for name, value in settings.items()
    )


def _conninfo(dsn: str, name: str, options: str = "", **extra: Any) -> str:
    words = conninfo_to_dict(dsn)
    both = f"{words.get('options') or ''} {options}".strip()
    merged: dict[str, Any] = {**_KEEPALIVE, **words, **extra, "application_name": name}
    if both:
        merged["options"] = both
    return make_conninfo("", **merged)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
