"""Abort: everything of a job goes, and the source stays as it is."""

from __future__ import annotations

from restructure.catalog import job as jobs
from restructure.catalog import schema
from restructure.catalog.job import Job
from restructure.errors import UsageError
from restructure.model.failpoint import failpoint
from restructure.model.names import Direction, Names
from restructure.model.phase import Phase, source_serves
from restructure.phases.removal import remove_schema, remove_stream, remove_tables
from restructure.plan.load import parse_plan
from restructure.postgres.connect import Connection


def run(connection: Connection, dsn: str, job: Job, token: int) -> None:
    """Remove slots, publications, schemas and spools, then the job; the state schema goes with the last job.

    Needs no source table, for that may be gone. Raises UsageError while the new table serves.
    """
    phase = Phase(job.phase)
    if not source_serves(phase):
        raise UsageError(
            f"job {job.name} is {phase}: there is nothing to abort",
            hint=f"The old table stands in schema {job.names.retired_schema} until the job is finalized.",
        )
    options = parse_plan(job.plan, job.plan_file).plan.stream
    directions = [Names.of(job.name, direction) for direction in Direction]
    for names in directions:
        remove_stream(dsn, names, options)
    failpoint("abort.stream")
    for name in (job.names.shadow_schema, job.names.retired_schema):
        remove_schema(connection, name)
    with connection.transaction():
        for names in directions:
            remove_tables(connection, names)
        jobs.store(connection, job.id, request=None, paused=False)
        jobs.advance(connection, job.id, token, phase, Phase.ABORTED)
    failpoint("abort.committed")
    schema.drop_if_idle(connection)
