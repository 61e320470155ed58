"""What hangs on the table and is not carried yet: one check per kind, each naming what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.names import Names
from restructure.model.phase import ENDED
from restructure.shape.carry import (
    defaults,
    functions,
    inbound_keys,
    labels,
    materialized_views,
    others,
    policies,
    publications,
    row_security,
    row_types,
    rules,
    self_references,
    statistics,
    triggers,
    views,
)
from restructure.shape.carry.dependents import Find

_KINDS: dict[str, tuple[Find, str]] = {
    "default": (defaults.find, "Drop the default for the time of the job."),
    "extended statistics": (statistics.find, "Drop them and create them again afterwards."),
    "function": (functions.find, "Drop it and create it again afterwards."),
    "inbound foreign key": (inbound_keys.find, "Drop it and add it again afterwards."),
    "materialized view": (materialized_views.find, "Drop it and create it again afterwards."),
    "object": (others.find, "Drop it and create it again afterwards."),
    "policy": (policies.find, "Drop it and create it again afterwards."),
    "publication": (publications.find, "Take the table out of it, and put it in again afterwards."),
    "row security": (row_security.find, "ALTER TABLE … DISABLE ROW LEVEL SECURITY first."),
    "row type": (row_types.find, "Use a type of its own instead of the table's row type."),
    "rule": (rules.find, "Drop it and create it again afterwards."),
    "security label": (labels.find, "Remove it (IS NULL) and set it again afterwards."),
    "self-reference": (self_references.find, "Drop it and add it again afterwards."),
    "trigger": (triggers.find, "Drop it and create it again afterwards."),
    "view": (views.find, "Drop it and create it again afterwards."),
}


def checks() -> Iterator[tuple[str, Callable[[CheckContext], Iterator[Finding]]]]:
    """Each kind's check with its name."""
    for kind, (find, hint) in _KINDS.items():
        yield f"dependents: {kind}", _check(kind, find, hint)


def _check(kind: str, find: Find, hint: str) -> Callable[[CheckContext], Iterator[Finding]]:
    def check(context: CheckContext) -> Iterator[Finding]:
        if context.table.relation_kind not in ("r", "p"):
            return  # refused as what it is
        for found in find(context.connection, context.table):
            if found.kind == "publication" and found.name in _ours(context):
                continue  # of this job, or of one that names_taken refuses by its name
            yield Finding(
                f"dependents: {kind}",
                f"{kind} {found.name} hangs on {context.table.relation} and cannot be carried yet",
                hint,
            )

    return check


def _ours(context: CheckContext) -> set[str]:
    """The publications of this job and of all others that are under way."""
    known = context.row("SELECT pg_catalog.to_regclass('restructure.job')") != (None,)
    jobs = context.rows(_JOBS, ended=[str(phase) for phase in ENDED]) if known else []
    return {context.job.publication} | {Names.of(name).publication for (name,) in jobs}


_JOBS = "SELECT name FROM restructure.job WHERE phase <> ALL(%(ended)s)"
