"""``check --data``: which rows of the source the new table would refuse. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.engine.throttle import judge
from restructure.engine.trial.demands import read_demands
from restructure.engine.trial.new_row import NewRow, new_row
from restructure.engine.trial.rule import Demands, NotLookedAt
from restructure.engine.trial.scan import Scan, read_only
from restructure.engine.trial.tally import Refused, Tally
from restructure.engine.trial.uniques import Uniques
from restructure.errors import Finding, Interrupted
from restructure.model.names import Names
from restructure.phases.refused_rows import finding, unjudged
from restructure.plan.load import LoadedPlan
from restructure.ports import StreamLag
from restructure.postgres.connect import Connection, connect
from restructure.postgres.script import Script
from restructure.shape.shadow import build_shadow
from restructure.shape.table import Table, read_relation

_TICK = 0.25
_JUDGED_EVERY = 1.0
_NO_STREAM = StreamLag(0, 0)


@dataclass(frozen=True, slots=True)
class Looking:
    """How far the check is. ``unique`` is the index that all rows are looked at for now."""

    blocks: int
    blocks_total: int
    rows: int
    refusals: int
    unique: str | None
    throttled: str | None

    @property
    def share(self) -> float:
        """Between 0 and 1; an empty table counts as looked at."""
        return self.blocks / self.blocks_total if self.blocks_total else 1.0


@dataclass(frozen=True, slots=True)
class DataCheck:
    """What was found. ``complete``: every row was judged; else each count is "at least".

    ``asked_of_all_rows``: the unique indexes that one long statement each has looked at.
    """

    table: str
    key: tuple[str, ...]
    rows: int
    seconds: float
    complete: bool
    refused: list[Refused]
    not_looked_at: list[NotLookedAt]
    asked_of_all_rows: list[str]

    @property
    def findings(self) -> Iterator[Finding]:
        for refused in self.refused:
            yield finding(refused, self.table, self.key, complete=self.complete)
        for demand in self.not_looked_at:
            yield unjudged(demand)

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "complete": self.complete,
            "key": list(self.key),
            "refused": [asdict(refused) for refused in self.refused],
            "not_looked_at": [asdict(demand) for demand in self.not_looked_at],
            "asked_of_all_rows": self.asked_of_all_rows,
        }


Listener = Callable[[Looking], None]


class DataChecker:
    """One look at all rows. ``listener`` is called from a thread, a few times a second."""

    def __init__(self, dsn: str, loaded: LoadedPlan, source: Table, listener: Listener) -> None:
        self._dsn = dsn
        self._loaded = loaded
        self._source = source
        self._listener = listener
        self._job = loaded.plan.name
        self._control = Control(Crew())

    def stop(self, reason: str) -> None:
        """End it now; statements under way are cancelled. From any thread."""
        self._control.stop(reason)

    def run(self) -> DataCheck:
        """Call it when the preflight refuses nothing and no job is under way.

        Raises PlanError as the preflight does, Interrupted when stopped.
        """
        try:
            return self._run()
        except Interrupted as stopped:
            raise Interrupted(
                stopped.message, hint="Nothing was changed. The check begins anew when run again."
            ) from None
        finally:
            self._control.crew.dismiss()

    def _run(self) -> DataCheck:
        began = time.monotonic()
        tally = Tally()
        plan = self._loaded.plan
        with read_only(self._dsn, self._job, "check") as looking:
            row, demands = self._read(looking)
            scan = Scan(
                row,
                demands.rules,
                tally,
                dsn=self._dsn,
                job=self._job,
                control=self._control,
                target=plan.copy_.chunk_target.total_seconds(),
            )
            uniques = Uniques(row, tally, dsn=self._dsn, job=self._job, control=self._control)
            self._judge(looking)
            self._control.crew.start("watch", lambda: self._watch(scan, tally, uniques))
            not_looked_at = [*demands.not_looked_at, *scan.prove(looking)]
            scan.run(looking, plan.copy_.workers)
            uniques.look(demands.uniques)
        self._control.check()
        return DataCheck(
            table=str(self._source.relation),
            key=tuple(key.name for key in self._source.key),
            rows=tally.rows,
            seconds=time.monotonic() - began,
            complete=scan.complete,
            refused=tally.refused,
            not_looked_at=[*not_looked_at, *uniques.not_looked_at],
            asked_of_all_rows=[unique.name for unique in demands.uniques],
        )

    def _read(self, looking: Connection) -> tuple[NewRow, Demands]:
        """Read what is needed from a shadow that nobody else ever sees."""
        with (
            connect(self._dsn, job=self._job, role="check shadow") as connection,
            connection.transaction(force_rollback=True),
        ):
            names = Names.of(self._job)
            shadow = build_shadow(Script(connection), self._source, self._loaded, names)
            table = read_relation(connection, shadow.relation.oid)
            row = new_row(connection, looking, self._source, table, shadow.mapping)
            return row, read_demands(connection, self._source, table, shadow, row)

    def _watch(self, scan: Scan, tally: Tally, uniques: Uniques) -> None:
        judged = 0.0
        control = self._control
        with read_only(self._dsn, self._job, "check watch") as session:
            while not control.crew.stopping.wait(_TICK):
                control.enforce()
                now = time.monotonic()
                if now - judged >= _JUDGED_EVERY:
                    judged = now
                    self._judge(session)
                self._listener(
                    Looking(
                        scan.blocks_done,
                        scan.blocks,
                        tally.rows,
                        tally.refusals,
                        uniques.under_way,
                        control.throttled,
                    )
                )

    def _judge(self, session: Connection) -> None:
        def ask() -> None:
            throttle = self._loaded.plan.throttle
            self._control.throttled = judge(session, throttle, _NO_STREAM).hold

        self._control.long_statement(session, ask)
