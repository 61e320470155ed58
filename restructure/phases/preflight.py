"""Preflight: everything that can be known before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.checks.registry import CheckContext, run_checks
from restructure.engine.work import watched
from restructure.errors import Finding, PreflightRefused
from restructure.model.names import Names
from restructure.plan.load import LoadedPlan
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.shadow import Shadow, build_shadow
from restructure.shape.table import Table, read_table


@dataclass(frozen=True, slots=True)
class Preflight:
    """The source, what the checks found, and the shadow that would be made."""

    source: Table
    findings: list[Finding]
    shadow: Shadow | None
    script: Script


def preflight(connection: Connection, dsn: str, loaded: LoadedPlan) -> Preflight:
    """Run all checks, then build the shadow in a transaction that is rolled back.

    Raises UsageError (no such table) and PlanError (what PostgreSQL does not accept). The
    shadow is None where a check refuses, for then it may not even be possible.
    """
    names = Names.of(loaded.plan.name)
    source = read_table(connection, loaded.plan.table)
    context = CheckContext(connection, dsn, source, names, loaded.plan, watched(source))
    findings = run_checks(context)
    script = Script(connection)
    shadow = None
    if not any(finding.refuses for finding in findings):
        with connection.transaction(force_rollback=True):
            shadow = build_shadow(script, source, loaded, names)
    return Preflight(source, findings, shadow, script)


def refuse(findings: list[Finding]) -> None:
    """Raise PreflightRefused if any finding refuses."""
    if any(finding.refuses for finding in findings):
        raise PreflightRefused(findings)
