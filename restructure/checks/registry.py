"""All preflight checks, run in the order of their names, with every finding at once."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.errors import Finding
from restructure.model.names import Names
from restructure.model.relation import Watched
from restructure.plan.model import Plan
from restructure.postgres.connect import Connection
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What checks may look at. ``connection`` is in autocommit; checks change nothing.

    Without ``source`` (as in ``doctor``) only the checks of the server run; with it, names,
    plan and watched must be there too.
    """

    connection: Connection
    dsn: str
    source: Table | None = None
    names: Names | None = None
    plan: Plan | None = None
    watched: Watched | None = None


def run_checks(context: CheckContext) -> list[Finding]:
    """Run every check that the context allows; refusals come before warnings."""
    raise NotImplementedError
