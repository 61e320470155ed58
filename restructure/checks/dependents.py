"""What hangs on the table and cannot be carried: one check per kind, each naming what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
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
            yield Finding(
                f"dependents: {kind.name}",
                f"{kind.name} {found.name} hangs on {context.table.relation} and cannot be carried",
                kind.hint,
            )

    return check
