"""The statements of a whole job in their order, composed by the code that runs them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg import sql

from restructure.catalog.spool import Spool
from restructure.engine.sides import watched
from restructure.engine.transform import Transform
from restructure.model.names import STATE_SCHEMA, Names
from restructure.model.phase import Phase
from restructure.model.relation import Relation
from restructure.plan.load import LoadedPlan
from restructure.postgres import publication
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script, Statement, Step
from restructure.shape.carry.swap import Swap
from restructure.shape.shadow import Shadow
from restructure.shape.table import Table

_MANY_LEAVES = 3


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One statement. A text that begins with ``--`` is not SQL but something that is waited for."""

    phase: Phase
    text: str
    lock: str
    why: str


class Recorder(Script):
    """Keeps statements without running them."""

    def run(self, statement: Statement, *, lock: str, why: str) -> None:
        composed = sql.SQL(statement) if isinstance(statement, str) else statement
        self.steps.append(Step(composed.as_string(self.connection), lock, why))


class Composer:
    """Composes the phases of one job around a shadow that exists, if only in a transaction to be
    rolled back.
    """

    def __init__(
        self,
        connection: Connection,
        loaded: LoadedPlan,
        source: Table,
        names: Names,
        shadow: Shadow,
    ) -> None:
        self._connection = connection
        self._loaded = loaded
        self._source = source
        self._names = names
        self._shadow = shadow
        self._spool = Spool(names, source.key)
        self._transform = Transform(source.relation, shadow.relation, shadow.mapping, self._spool)

    def setup(self, made: Iterable[Step], *, state_is_there: bool) -> Iterator[PlannedStep]:
        names = self._names
        spool = f"{STATE_SCHEMA}.{names.spool}"
        if not state_is_there:
            yield PlannedStep(
                Phase.PLANNED,
                f"CREATE SCHEMA {STATE_SCHEMA}; CREATE TABLE {STATE_SCHEMA}.job (…), "
                ".stream (…), .extent (…), .chunk (…), .journal (…)",
                "none",
                "where jobs keep their state",
            )
        yield PlannedStep(
            Phase.SETUP,
            f"CREATE TABLE {spool} (…); CREATE TABLE {STATE_SCHEMA}.{names.quarantine} (…)",
            "none",
            "keys that change during the copy; keys whose rows the new shape refuses",
        )
        if self._loaded.plan.stream["kind"] == "pgoutput":
            recorder = Recorder(self._connection)
            publication.create(recorder, names.publication, watched(self._source))
            yield from self._of(Phase.SETUP, recorder.steps)
            yield PlannedStep(
                Phase.SETUP,
                f"CREATE_REPLICATION_SLOT \"{names.slot}\" LOGICAL pgoutput (SNAPSHOT 'export')",
                "none",
                "changes from here on are kept for us; waits for transactions that are under way",
            )
        yield PlannedStep(
            Phase.SETUP,
            f"-- wait until everybody who is writing to {self._source.relation} now has committed",
            "none",
            "their rows might be in neither the stream nor the copy",
        )
        yield from self._of(Phase.SETUP, made)

    def copy(self) -> Iterator[PlannedStep]:
        leaves = self._source.leaves
        more = (
            f", and so for {len(leaves) - _MANY_LEAVES} more partitions"
            if len(leaves) > _MANY_LEAVES
            else ""
        )
        for leaf in leaves[:_MANY_LEAVES]:
            yield self._later(
                Phase.COPY,
                self._transform.copy_range(leaf),
                f"ACCESS SHARE on {leaf}, ROW EXCLUSIVE on {self._shadow.relation}",
                "range after range of its blocks, each in a short transaction of its own" + more,
            )

    def index(self) -> Iterator[PlannedStep]:
        relation = self._shadow.relation
        yield self._later(
            Phase.INDEX,
            self._transform.delete_spooled(),
            f"ROW EXCLUSIVE on {relation}",
            "rows that changed during the copy may be there twice, or be stale",
        )
        later = sorted(
            (item for item in self._shadow.set_aside if item.moment in ("key", "index")),
            key=lambda item: item.moment != "key",
        )
        for item in later:
            why = "catch-up finds rows by it" if item.moment == "key" else "taken off for the copy"
            yield PlannedStep(Phase.INDEX, item.statement, item.lock, why)

    def catchup(self) -> Iterator[PlannedStep]:
        yield self._later(Phase.CATCHUP, self._transform.merge(divided=False), *self._merging())
        yield self._later(
            Phase.CATCHUP,
            sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}").format(self._shadow.relation.identifier),
            f"SHARE UPDATE EXCLUSIVE on {self._shadow.relation}",
            "statistics and visibility map before anybody queries it",
        )

    def cutover(self, prepared: Iterable[Step], swap: Swap) -> Iterator[PlannedStep]:
        yield from self._of(Phase.CUTOVER, prepared)
        source = self._source.relation
        limits = self._loaded.plan.cutover
        timeout = round(limits.lock_timeout.total_seconds() * 1000)
        budget = round(limits.lock_budget.total_seconds() * 1000)
        yield PlannedStep(
            Phase.CUTOVER, "BEGIN", "none", "the swap: one transaction, all of it or nothing"
        )
        yield self._locking(
            source, "SHARE UPDATE EXCLUSIVE", "", "evicts autovacuum; clients notice nothing"
        )
        yield from self._of(Phase.CUTOVER, swap.first)
        yield self._locking(
            source,
            "ACCESS EXCLUSIVE",
            "",
            f"waits {timeout} ms at most per try; held {budget} ms at most",
        )
        ours = {leaf.oid for leaf in self._source.leaves} | {source.oid}
        for wanted in swap.wanted:
            if wanted.lockable and wanted.relation.oid not in ours:
                yield self._locking(
                    wanted.relation,
                    wanted.mode,
                    " NOWAIT",
                    "whoever holds it goes first; we try again"
                    + (", and lock it before the table every second time" * wanted.writer),
                )
        if self._loaded.plan.stream["kind"] == "pgoutput":
            yield PlannedStep(
                Phase.CUTOVER,
                "SELECT pg_logical_emit_message(true, 'restructure', …)",
                "none",
                "from a second session; what comes before it in the stream is all there is",
            )
        yield self._later(Phase.CUTOVER, self._transform.merge(divided=False), *self._merging())
        yield from self._of(Phase.CUTOVER, swap.steps)
        yield PlannedStep(
            Phase.CUTOVER,
            f"UPDATE {STATE_SCHEMA}.job SET phase = 'live'; COMMIT",
            "none",
            "clients use the new table",
        )

    def live(self, swap: Swap, retiring: Iterable[PlannedStep]) -> Iterator[PlannedStep]:
        """``retiring``: what is done to the retired table."""
        names = self._names
        yield PlannedStep(
            Phase.LIVE,
            f"SELECT pg_drop_replication_slot('{names.slot}'); "
            f"DROP PUBLICATION {names.publication}; "
            f"DROP TABLE {STATE_SCHEMA}.{names.spool}, {STATE_SCHEMA}.{names.quarantine}",
            "none on the tables",
            "nobody reads them any more",
        )
        yield from retiring
        for item in (*self._shadow.set_aside, *swap.later):
            if item.moment == "after":
                yield PlannedStep(
                    Phase.LIVE, item.statement, item.lock, "readers and writers go on"
                )
        yield self._later(
            Phase.LIVE,
            sql.SQL("ANALYZE {}").format(self._source.relation.identifier),
            f"SHARE UPDATE EXCLUSIVE on {self._source.relation}",
            "fresh statistics",
        )

    def _merging(self) -> tuple[str, str]:
        return (
            f"ACCESS SHARE on {self._source.relation}, ROW EXCLUSIVE on {self._shadow.relation}",
            "apply changed keys, some thousands at a time, reading their rows from the table",
        )

    def _locking(self, table: Relation, mode: str, ending: str, why: str) -> PlannedStep:
        statement = sql.SQL("LOCK TABLE {} IN {} MODE{}").format(
            table.identifier, sql.SQL(mode), sql.SQL(ending)
        )
        return self._later(Phase.CUTOVER, statement, f"{mode} on {table}", why)

    def _later(self, phase: Phase, statement: sql.Composed, lock: str, why: str) -> PlannedStep:
        return PlannedStep(phase, shown(statement.as_string(self._connection)), lock, why)

    def _of(self, phase: Phase, steps: Iterable[Step]) -> Iterator[PlannedStep]:
        return (PlannedStep(phase, step.text, step.lock, step.why) for step in steps)


def shown(text: str) -> str:
    """A statement with psycopg's placeholders as ``:name`` and its doubled percent signs single."""
    return re.sub(r"%%|%\((\w+)\)s", lambda found: f":{found[1]}" if found[1] else "%", text)
