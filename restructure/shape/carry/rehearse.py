"""Try on the empty shadow, before anything is done, whether all that hangs on the table can be carried."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from restructure.model.names import Names
from restructure.postgres.connect import Connection
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
    indexes are made here, for foreign keys and CLUSTER need them. Locks no table but the shadow.
    """
    with connection.transaction(force_rollback=True):
        for aside in shadow.set_aside:
            if aside.moment in ("key", "index"):
                connection.execute(printed(aside.statement))
        carrying = Carrying.of(connection, source, shadow, names)
        for kind in CARRIED:
            yield from ((kind, reason) for reason in _try(kind, carrying))


def _try(kind: Kind, carrying: Carrying) -> Iterator[str]:
    if kind.rehearse is not None:
        yield from kind.rehearse(carrying)
        return
    try:
        with carrying.connection.transaction():
            if kind.ahead is not None:
                kind.ahead(Script(carrying.connection), carrying)
            if kind.part is not None:
                up = kind.part(carrying).up
                with carrying.staged():
                    for step in up:
                        carrying.connection.execute(printed(step.text))
    except psycopg.DatabaseError as error:
        if error.sqlstate is None or error.sqlstate.startswith(("08", "57")):
            raise
        yield said(error)


def said(error: psycopg.Error) -> str:
    """PostgreSQL's message and detail in one line."""
    parts = (error.diag.message_primary, error.diag.message_detail)
    return "; ".join(" ".join(part.split()) for part in parts if part) or str(error)
