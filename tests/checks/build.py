"""A context for a check, and a way to ask for one check alone."""

from __future__ import annotations

import psycopg

from restructure.checks.registry import SERVER_CHECKS, TABLE_CHECKS, CheckContext
from restructure.errors import Finding
from restructure.model.names import Names
from restructure.plan.model import Plan
from restructure.postgres.connect import connect
from restructure.shape.table import read_table


def server_findings(dsn: str, check: str) -> list[Finding]:
    """What ``check`` says about the server behind ``dsn``, as ``doctor`` would."""
    with connect(dsn, role="check") as session:
        return list(SERVER_CHECKS[check](CheckContext(session, dsn)))


def table_context(session: psycopg.Connection, dsn: str, table: str, job: str) -> CheckContext:
    return CheckContext(
        session,
        dsn,
        read_table(session, table),
        Names.of(job),
        Plan(name=job, table=table, alter=("ADD COLUMN extra int",)),
    )


def table_findings(dsn: str, check: str, table: str = "t", job: str = "job") -> list[Finding]:
    """What ``check`` says about ``table``."""
    with connect(dsn, role="check") as session:
        return list(TABLE_CHECKS[check](table_context(session, dsn, table, job)))


def role(connection: psycopg.Connection, dsn: str, options: str = "") -> tuple[str, str]:
    """A new role of the test's own (roles belong to the whole cluster), and the DSN to be it."""
    name = f"{connection.info.dbname}_role"
    connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {options}")
    return name, psycopg.conninfo.make_conninfo(dsn, user=name, password="secret")
