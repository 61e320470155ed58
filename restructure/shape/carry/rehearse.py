"""Try on the empty shadow, before anything is done, whether all that hangs on the table can be carried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from restructure.errors import NotNow
from restructure.model.names import Names
from restructure.postgres.connect import Connection
from restructure.postgres.said import refusal, said
from restructure.postgres.script import Script
from restructure.shape.carry.kind import Carrying, Kind
from restructure.shape.carry.kinds import CARRIED
from restructure.shape.deparse import printed
from restructure.shape.made import Shadow
from restructure.shape.table import Table


def rehearse(
    connection: Connection, source: Table, shadow: Shadow, names: Names
) -> Iterator[tuple[Kind, str]]:
    """Yield what cannot be carried, with its kind and PostgreSQL's own reason.

    To be called in a transaction that is rolled back, when the shadow was just built: its
    indexes are made here, for foreign keys and CLUSTER need them. Other tables are locked as
    weakly as by a client, for PostgreSQL locks what a definition mentions even to print it.
    Raises NotNow where that would have to wait.
    """
    with connection.transaction(force_rollback=True), _not_waiting(connection):
        for aside in shadow.set_aside:
            if aside.moment in ("key", "index"):
                connection.execute(printed(aside.statement))
        carrying = Carrying.of(connection, source, shadow, names)
        for kind in CARRIED:
            yield from ((kind, reason) for reason in _try(kind, carrying))


@contextmanager
def _not_waiting(connection: Connection) -> Iterator[None]:
    connection.execute("SELECT set_config('lock_timeout', %s, true)", [_LOCK_TIMEOUT])
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise NotNow(
            f"a lock for trying what hangs on the table was not had within {_LOCK_TIMEOUT}: "
            f"{said(error)}",
            hint="Somebody changes a table or a view that it mentions. Run the same command again.",
        ) from error


_LOCK_TIMEOUT = "500ms"
"""A request that waits makes everybody queue behind it (PostgreSQL docs, explicit-locking)."""


def _try(kind: Kind, carrying: Carrying) -> Iterator[str]:
    if kind.rehearse is not None:
        yield from kind.rehearse(carrying)
        return

    def run() -> None:
        if kind.ahead is not None:
            kind.ahead(Script(carrying.connection), carrying)
        if kind.part is not None:
            up = kind.part(carrying).up
            with carrying.staged():
                for step in up:
                    carrying.connection.execute(printed(step.text))

    reason = refusal(carrying.connection, run)
    if reason:
        yield reason
