"""Abort: everything of a job goes, and the source stays as it is."""

from __future__ import annotations

from psycopg import sql

from restructure.catalog import job as jobs
from restructure.catalog import schema
from restructure.catalog.job import Job
from restructure.catalog.spool import Spool
from restructure.errors import UsageError
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase, before_swap
from restructure.plan.load import parse_plan
from restructure.ports import find_stream
from restructure.postgres.connect import Connection


def run(connection: Connection, dsn: str, job: Job, token: int) -> None:
    """Remove slot, publication, schemas and spool, then the job; the state schema goes with the last job.

    Needs no source table, for that may be gone. Raises UsageError after the cutover.
    """
    phase = Phase(job.phase)
    if not before_swap(phase):
        raise UsageError(
            f"job {job.name} is {phase}: there is nothing to abort",
            hint=f"The old table stands in schema {job.names.retired_schema} until the job is finalized.",
        )
    stream = parse_plan(job.plan, job.plan_file).plan.stream
    find_stream(stream["kind"])(dsn, job.names, stream).drop()
    failpoint("abort.stream")
    with connection.transaction():
        for name in (job.names.shadow_schema, job.names.retired_schema):
            connection.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name))
            )
        Spool(job.names, ()).drop(connection)
        jobs.store(connection, job.id, request=None, paused=False)
        jobs.advance(connection, job.id, token, phase, Phase.ABORTED)
    failpoint("abort.committed")
    schema.drop_if_idle(connection)
