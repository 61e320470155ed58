"""``restructure doctor``: can this server and this role do it at all."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from restructure.checks.registry import CheckContext, run_checks
from restructure.cli.invocation import invocation
from restructure.cli.render import finding_document, finding_lines
from restructure.errors import PreflightRefused


def doctor(context: typer.Context) -> None:
    """Look at the server and the role: wal_level, slots, senders, privileges, what stands in the
    way.

    Changes nothing. Exit code 3 means that no job could run here yet.
    """
    call = invocation(context)
    with call.session() as connection:
        version = connection.info.parameter_status("server_version") or ""
        user, database = connection.info.user, connection.info.dbname
        findings = run_checks(CheckContext(connection, call.dsn))
    refused = any(finding.refuses for finding in findings)

    def lines() -> Iterator[str]:
        yield f"PostgreSQL {version}, database {database}, role {user}"
        yield from finding_lines(findings)
        yield "No job can run here yet." if refused else "Jobs can run here."

    call.output.result(
        "doctor",
        {
            "server_version": version,
            "database": database,
            "role": user,
            "ok": not refused,
            "findings": [finding_document(finding) for finding in findings],
        },
        lines,
    )
    if refused:
        raise typer.Exit(PreflightRefused.exit_code)
