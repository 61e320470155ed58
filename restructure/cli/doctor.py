"""``restructure doctor``: can this server and this role do it at all."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from restructure.checks.registry import SERVER_CHECKS, CheckContext, run_checks
from restructure.checks.server import version
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
        server = connection.info.parameter_status("server_version") or ""
        user, database = connection.info.user, connection.info.dbname
        findings = run_checks(CheckContext(connection, call.dsn))
    refused = any(finding.refuses for finding in findings)
    troubled = {finding.check for finding in findings}
    # on a server that is too old nothing else was asked, see run_checks
    fine = [] if version.NAME in troubled else sorted(SERVER_CHECKS.keys() - troubled)

    def lines() -> Iterator[str]:
        yield f"PostgreSQL {server}, database {database}, role {user}"
        if fine:
            yield f"fine     {', '.join(fine)}"
        yield from finding_lines(findings)
        yield "No job can run here yet." if refused else "Jobs can run here."

    call.output.result(
        "doctor",
        {
            "server_version": server,
            "database": database,
            "role": user,
            "ok": not refused,
            "fine": fine,
            "findings": [finding_document(finding) for finding in findings],
        },
        lines,
    )
    if refused:
        raise typer.Exit(PreflightRefused.exit_code)
