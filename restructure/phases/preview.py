"""What a run would do: every statement in its order, with its lock, and the space it needs. Changes
nothing.

Composed by the code that runs it, where that is possible: the shadow is really built, in a
transaction that is rolled back; what runs outside of transactions, or later, is composed only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from restructure.catalog import schema
from restructure.errors import UsageError
from restructure.model.names import Names
from restructure.model.phase import Phase
from restructure.phases.preview_steps import Composer, PlannedStep
from restructure.phases.preview_way_back import BackComposer, WayBackPreview
from restructure.plan.load import LoadedPlan
from restructure.postgres.connect import Connection
from restructure.postgres.locks import MODES
from restructure.postgres.script import Script
from restructure.shape.carry.kinds import CARRIED
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import swap_steps
from restructure.shape.deparse import printed
from restructure.shape.shadow import build_shadow
from restructure.shape.table import Table

_SLOWEST, _FASTEST = 15e6, 100e6
"""Bytes of table and indexes per second, copied and indexed: two cores and a plain disk made about
60e6.
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes in bytes and times in seconds. ``rows`` is the server's estimate, None where it has
    none.
    """

    rows: int | None
    table_bytes: int
    index_bytes: int

    @property
    def needed_bytes(self) -> int:
        """Disk that the shadow will take, were the new rows as wide as the old ones, dead rows
        included.
        """
        return self.table_bytes + self.index_bytes

    @property
    def seconds(self) -> tuple[float, float]:
        """A rough guess from the size alone, at least and at most."""
        return 1 + self.needed_bytes / _FASTEST, 10 + self.needed_bytes / _SLOWEST


@dataclass(frozen=True, slots=True)
class Carried:
    """One thing that hangs on the table, and how it comes to the new one."""

    kind: str
    name: str
    how: str


@dataclass(frozen=True, slots=True)
class Preview:
    """``strongest_before``: the strongest lock on the source before the swap, and the statement
    that takes it. ``carried``: what hangs on the table, beside owner, grants and comments.
    """

    source: Table
    names: Names
    steps: tuple[PlannedStep, ...]
    strongest_before: str
    taken_by: str
    swap_locks: tuple[str, ...]
    carried: tuple[Carried, ...]
    way_back: WayBackPreview
    size: Size

    def as_json(self) -> dict[str, Any]:
        low, high = self.size.seconds
        return {
            "job": self.names.job,
            "table": str(self.source.relation),
            "strongest_lock_before_swap": self.strongest_before,
            "strongest_lock_statement": self.taken_by,
            "swap_locks": list(self.swap_locks),
            "carried": [asdict(thing) for thing in self.carried],
            "way_back": self.way_back.as_json(),
            "rows": self.size.rows,
            "table_bytes": self.size.table_bytes,
            "index_bytes": self.size.index_bytes,
            "needed_bytes": self.size.needed_bytes,
            "guessed_seconds": {"least": round(low, 1), "most": round(high, 1)},
            "steps": [asdict(step) for step in self.steps],
        }


def preview(connection: Connection, loaded: LoadedPlan, source: Table) -> Preview:
    """Compose the whole job. ``connection`` is in autocommit; call it when the checks have passed.

    Raises PlanError for what PostgreSQL does not accept, UsageError where the job runs already.
    """
    names = Names.of(loaded.plan.name)
    if (
        schema.exists(connection)
        and connection.execute(
            "SELECT FROM restructure.job WHERE name = %s AND phase NOT IN ('finalized', 'aborted')",
            (names.job,),
        ).fetchone()
    ):
        raise UsageError(
            f"job {names.job} has begun already: a preview is of what has not",
            hint=f"restructure status {names.job} shows how far it is.",
        )
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL lock_timeout = '5s'")
        state_is_there = schema.exists(connection)
        schema.ensure(connection)
        script = Script(connection)
        shadow = build_shadow(script, source, loaded, names)
        for aside in shadow.set_aside:
            if aside.moment in ("key", "index"):  # a view may need its table's primary key
                connection.execute(printed(aside.statement))
        prepared = prepare_shadow(
            connection,
            source,
            shadow,
            names,
            by_create=loaded.plan.create is not None,
            trial=True,
        )
        swap = swap_steps(connection, source, shadow, names)
        left = replace(shadow, set_aside=(*shadow.set_aside, *swap.later))
        composer = Composer(connection, loaded, source, names, left)
        back = BackComposer(connection, loaded, source, shadow, names)
        steps = (
            *composer.setup(script.steps, state_is_there=state_is_there),
            *composer.copy(),
            *composer.index(),
            *composer.catchup(),
            *back.before_lock(),
            *composer.cutover(prepared, swap),
            *composer.live(swap, back.retiring()),
            *back.following(),
        )
        way_back = back.described()
        size = _size(connection, source)
    mode, text = _strongest((step for step in steps if _before_swap(step)), source)
    locks = tuple(f"{wanted.mode} on {wanted.relation}" for wanted in swap.wanted)
    carried = tuple(
        Carried(kind.name, found.name, kind.how)
        for kind in CARRIED
        for found in kind.find(connection, source)
    )
    return Preview(source, names, steps, mode, text, locks, carried, way_back, size)


_LOCK = re.compile(rf"({'|'.join(sorted(MODES, key=len, reverse=True))}) on ")


def _strongest(steps: Iterable[PlannedStep], source: Table) -> tuple[str, str]:
    """The strongest lock on the source among ``steps``, and the first statement that takes it."""
    ours = {str(member) for member in source.tree}
    best, taken_by = "ACCESS SHARE", ""
    for step in steps:
        words = _LOCK.split(step.lock)[1:]
        for mode, names in zip(words[::2], words[1::2], strict=True):
            named = set(re.split(r", | and ", names.strip(" ,")))
            if named & ours and (not taken_by or MODES.index(mode) > MODES.index(best)):
                best, taken_by = mode, step.text
    return best, taken_by


def _before_swap(step: PlannedStep) -> bool:
    return step.phase not in (Phase.CUTOVER, Phase.LIVE)


def _size(connection: Connection, source: Table) -> Size:
    row = connection.execute(
        """
        SELECT sum(reltuples) FILTER (WHERE reltuples >= 0)::bigint,
               coalesce(sum(pg_table_size(oid)), 0)::bigint,
               coalesce(sum(pg_indexes_size(oid)), 0)::bigint
        FROM pg_class WHERE oid = ANY(%s::oid[])
        """,
        ([leaf.oid for leaf in source.leaves],),
    ).fetchone()
    assert row is not None
    return Size(*row)
