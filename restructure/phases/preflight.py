"""Preflight: everything that can be known before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from restructure.catalog import job as jobs
from restructure.catalog import schema
from restructure.catalog.job import Job
from restructure.checks.registry import CheckContext, run_checks
from restructure.checks.table import (
    lost_self_references,
    narrow_references,
    retyped_readers,
    way_back,
)
from restructure.engine.sides import watched
from restructure.engine.throttle import check_query
from restructure.errors import Finding, PlanError, PreflightRefused, UsageError
from restructure.model.names import Names
from restructure.plan.load import LoadedPlan
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.shadow import Shadow, build_shadow
from restructure.shape.table import Table, read_relation, read_table


@dataclass(frozen=True, slots=True)
class Preflight:
    """The source, what the checks found, and the shadow that would be made."""

    source: Table
    findings: list[Finding]
    shadow: Shadow | None
    script: Script


def preflight(connection: Connection, dsn: str, loaded: LoadedPlan) -> Preflight:
    """Run all checks, then build the shadow in a transaction that is rolled back.

    Raises PlanError: no such table, what PostgreSQL does not accept, another plan than that
    of the job under way. The shadow is None where a check refuses, for then it may not even be
    possible, and where the job is under way, for then it is there.
    """
    names = Names.of(loaded.plan.name)
    job = jobs.find(connection, names.job) if schema.exists(connection) else None
    if job is not None and not job.ended:
        refuse_another_plan(job, loaded)
    source = _read_source(connection, loaded)
    context = CheckContext(connection, dsn, source, names, loaded.plan, watched(source))
    findings = run_checks(context)
    if not any(finding.refuses for finding in findings):
        _check_throttle(connection, loaded)
    script = Script(connection)
    shadow = None
    if job is not None and not job.ended:
        findings.append(_under_way(job))
    elif not any(finding.refuses for finding in findings):
        with connection.transaction(force_rollback=True):
            shadow = build_shadow(script, source, loaded, names)
            findings.extend(_cannot_be_carried(connection, source, shadow, names))
            findings.extend(narrow_references.find(connection, source, shadow))
            findings.extend(retyped_readers.find(connection, source, shadow))
            if loaded.plan.cutover.revert_window:
                findings.extend(way_back.find(connection, source, shadow))
            if loaded.plan.create is not None:
                made = read_relation(connection, shadow.relation.oid)
                findings.extend(_lost_defaults(source, made))
                findings.extend(lost_self_references.find(connection, source, shadow))
    return Preflight(source, findings, shadow, script)


def refuse_another_plan(job: Job, loaded: LoadedPlan) -> None:
    """Raise PlanError where ``job``, which is under way, is to make another table than this plan."""
    if job.digest != loaded.digest:
        raise PlanError(
            f"job {job.name} was started with another plan, for {job.source_name}, and is in phase "
            f"{job.phase}",
            place=loaded.place("name"),
            hint="copy, throttle, verify and cutover may change during a job; for anything else: "
            f"restructure abort {job.name}, or give the plan another name.",
        )


def refuse(findings: list[Finding]) -> None:
    """Raise PreflightRefused if any finding refuses."""
    if any(finding.refuses for finding in findings):
        raise PreflightRefused(findings)


def _read_source(connection: Connection, loaded: LoadedPlan) -> Table:
    try:
        return read_table(connection, loaded.plan.table)
    except UsageError as error:
        raise PlanError(error.message, place=loaded.place("table"), hint=error.hint) from None


def _check_throttle(connection: Connection, loaded: LoadedPlan) -> None:
    try:
        check_query(connection, loaded.plan.throttle)
    except PlanError as error:
        place = loaded.place("throttle", "query")
        raise PlanError(error.message, place=place, hint=error.hint) from None


def _cannot_be_carried(
    connection: Connection, source: Table, shadow: Shadow, names: Names
) -> Iterator[Finding]:
    for kind, reason in rehearse(connection, source, shadow, names):
        yield Finding(
            f"dependents: {kind.name}",
            f"what hangs on {source.relation} does not fit the new table: {reason}",
            kind.hint,
        )


def _lost_defaults(source: Table, made: Table) -> Iterator[Finding]:
    """What DDL written anew easily forgets: clients that leave the column out begin to fail."""
    for old in source.columns:
        new = made.column(old.name)
        fills_itself = old.identity or (old.default_sql and not old.generated)
        if fills_itself and new is not None and not (new.identity or new.default_sql):
            what = "is an identity column" if old.identity else f"has DEFAULT {old.default_sql}"
            yield Finding(
                "lost_defaults",
                f"{old.name} of {source.relation} {what}; in the table of create it has no default",
                "After the swap an INSERT must name the column. Write the default into create, or "
                "go on if it is meant to go.",
                refuses=False,
            )


def _under_way(job: Job) -> Finding:
    return Finding(
        "under_way",
        f"job {job.name} is under way already, in phase {job.phase}",
        f"restructure status {job.name} shows how far it is; restructure run goes on with it.",
        refuses=False,
    )
