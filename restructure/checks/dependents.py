"""What hangs on the table and is not carried yet: one check per kind, each naming what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.names import Names
from restructure.model.phase import ENDED
from restructure.shape.carry.kind import Kind
from restructure.shape.carry.kinds import REFUSED


def checks() -> Iterator[tuple[str, Callable[[CheckContext], Iterator[Finding]]]]:
    """Each kind's check with its name."""
    for kind in REFUSED:
        yield f"dependents: {kind.name}", _check(kind)


def _check(kind: Kind) -> Callable[[CheckContext], Iterator[Finding]]:
    def check(context: CheckContext) -> Iterator[Finding]:
        if context.table.relation_kind not in ("r", "p"):
            return  # refused as what it is
        for found in kind.find(context.connection, context.table):
            if found.kind == "publication" and found.name in _ours(context):
                continue  # of this job, or of one that names_taken refuses by its name
            yield Finding(
                f"dependents: {kind.name}",
                f"{kind.name} {found.name} hangs on {context.table.relation} and cannot be carried yet",
                kind.hint,
            )

    return check


def _ours(context: CheckContext) -> set[str]:
    """The publications of this job and of all others that are under way."""
    known = context.row("SELECT pg_catalog.to_regclass('restructure.job')") != (None,)
    jobs = context.rows(_JOBS, ended=[str(phase) for phase in ENDED]) if known else []
    return {context.job.publication} | {Names.of(name).publication for (name,) in jobs}


_JOBS = "SELECT name FROM restructure.job WHERE phase <> ALL(%(ended)s)"
