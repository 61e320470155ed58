"""A pooler breaks sessions apart: no SET, no advisory lock, no LOCK TABLE would hold."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding, Retryable
from restructure.postgres.connect import Connection, connect

NAME = "pooler"

_HINT = "Give the server's own address in the DSN: the pooler's port is often 6432 or 6543."


def find(context: CheckContext) -> Iterator[Finding]:
    try:
        with connect(context.dsn, role="check") as one, connect(context.dsn, role="check") as two:
            shared = _share_a_session(one, two)
            one.execute("SELECT pg_catalog.set_config('restructure.session', '', false)")
            told, real = one.info.backend_pid, _pid(one)
    except Retryable as error:
        yield Finding(NAME, f"a second session is refused: {error.message}", error.hint or _HINT)
        return
    if shared:
        yield Finding(NAME, "a pooler hands our sessions to changing server processes", _HINT)
    elif told != real:
        yield Finding(
            NAME,
            "something between us and the server keeps sessions of its own",
            "If it is a pooler, give the server's own address. A provider's proxy that keeps one "
            "session on one server process is fine.",
            refuses=False,
        )


def _share_a_session(one: Connection, two: Connection) -> bool:
    """Whether two sessions meet in one server process, or one of them moves to another.

    First a setting left by one is looked for by the other; then, while the other holds
    its process in a transaction, the one must still be where it was. In this order, for a
    pool of a single process would let the one wait for ever.
    """
    token = secrets.token_hex(8)
    before = _pid(one)
    one.execute("SELECT pg_catalog.set_config('restructure.session', %s, false)", [token])
    with two.transaction():
        row = two.execute("SELECT current_setting('restructure.session', true)").fetchone()
        return row == (token,) or _pid(one) != before


def _pid(connection: Connection) -> int:
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    return int(row[0]) if row else 0
