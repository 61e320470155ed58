"""What the swap was composed for: it must still be so under the lock."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.engine.drift import Guard
from restructure.engine.work import Work
from restructure.errors import NotNow, OperatorNeeded, StreamGap
from restructure.shape.carry.inventory import Inventory, inventory, require_unchanged
from restructure.shape.carry.kinds import REFUSED
from restructure.shape.fingerprint import Parts


@dataclass(frozen=True, slots=True)
class Expected:
    """The source's settings, and all that hangs on it, before the swap was composed."""

    soft: Parts
    inventory: Inventory

    def require_same(self, work: Work, guard: Guard) -> None:
        """Raise SchemaDrift or NotNow where something has changed since.

        On another session than the one that holds the lock, where these queries are planned
        already. They read catalogs only, and so wait for no lock.
        """
        if guard.check(work.state).soft != self.soft:
            raise NotNow("grants, comments or settings of the table changed just before the lock")
        require_unchanged(self.inventory, _read(work))


def expect(work: Work, guard: Guard) -> Expected:
    """Look, before the swap is composed.

    Raises SchemaDrift, and OperatorNeeded for what was hung on the table since the checks
    and cannot be carried.
    """
    expected = Expected(guard.check(work.state).soft, _read(work))
    for kind in REFUSED:
        for found in kind.find(work.state, work.source):
            raise OperatorNeeded(
                f"{kind.name} {found.name} hangs on {work.source.relation} now and cannot be carried",
                hint=f"{kind.hint} Then run the same command again.",
            )
    return expected


def require_whole_stream(work: Work) -> None:
    """A publication dropped since the last look: PostgreSQL 18 would have skipped changes silently."""
    lag = work.stream.lag()
    if not lag.healthy:
        raise StreamGap(
            f"the stream is lost: {lag.reason}",
            hint="Changes may be missing. Start over: "
            f"restructure abort {work.job.name}, then run the plan again.",
        )


def _read(work: Work) -> Inventory:
    return inventory(work.state, work.source.relation, work.names)
