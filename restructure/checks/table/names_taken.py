"""The names that the job derives must be free, or be its own from an earlier run."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.names import STATE_SCHEMA, Names
from restructure.model.phase import ENDED

NAME = "names_taken"

_JOBS = """
SELECT name, phase, source::int8, source_name FROM restructure.job
WHERE phase <> ALL(%(ended)s) ORDER BY id
"""
_STATE = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(name)s"
_TAKEN = """
SELECT 'replication slot', slot_name::text FROM pg_catalog.pg_replication_slots
WHERE slot_name = ANY(%(slots)s)
UNION ALL
SELECT 'publication', pubname FROM pg_catalog.pg_publication WHERE pubname = ANY(%(publications)s)
UNION ALL
SELECT 'schema', nspname FROM pg_catalog.pg_namespace WHERE nspname IN (%(shadow)s, %(retired)s)
"""


def find(context: CheckContext) -> Iterator[Finding]:
    names, table = context.job, context.table.relation
    known = context.row("SELECT pg_catalog.to_regclass('restructure.job')") != (None,)
    if not known and context.rows(_STATE, name=STATE_SCHEMA):
        yield Finding(
            NAME,
            f"there is a schema named {STATE_SCHEMA} already, and it is not ours",
            "Jobs keep their state in a schema of that name: rename yours.",
        )
    jobs = context.rows(_JOBS, ended=[str(phase) for phase in ENDED]) if known else []
    resumed = False
    for name, phase, source, source_name in jobs:
        if name == names.job:
            resumed = source == table.oid or source_name == str(table)
            if not resumed:
                yield _used(name, source_name)
                return
        elif _derived(Names.of(name)) & _derived(names):
            yield Finding(
                NAME,
                f"job {names.job} would share its names with job {name}, which is in phase {phase}",
                "Give this job another name: a hyphen and an underscore become the same, and a job "
                "has names that end in _retired and _reverse too.",
            )
        elif source == table.oid:
            yield Finding(
                NAME,
                f"{table} is being restructured by job {name}, which is in phase {phase}",
                f"Let it end first, or: restructure abort {name}",
            )
    if not resumed:
        yield from _strangers(context, names)


def _derived(names: Names) -> set[str]:
    return {names.slot, names.other.slot, names.shadow_schema, names.retired_schema}


def _used(name: str, source_name: str) -> Finding:
    return Finding(
        NAME,
        f"job name {name} is already used for {source_name}",
        f"Give this job another name, or: restructure abort {name}",
    )


def _strangers(context: CheckContext, names: Names) -> Iterator[Finding]:
    for kind, name in context.rows(
        _TAKEN,
        slots=[names.slot, names.other.slot],
        publications=list(names.publications),
        shadow=names.shadow_schema,
        retired=names.retired_schema,
    ):
        yield Finding(
            NAME,
            f"there is a {kind} named {name} already, and no job that it belongs to",
            f"Give the job another name, or drop the {kind} if it is left over.",
        )
