"""The part of a preview that is about going back: what makes it possible, and what it will bring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from restructure.catalog.spool import Spool
from restructure.checks.table.way_back import never_filled
from restructure.engine.sides import as_source, kept
from restructure.engine.transform import Transform
from restructure.model.names import STATE_SCHEMA, Names
from restructure.model.phase import Phase
from restructure.phases.preview_steps import PlannedStep, Recorder, shown
from restructure.plan.load import LoadedPlan
from restructure.plan.units import format_duration
from restructure.postgres import publication
from restructure.postgres.connect import Connection
from restructure.shape.made import Shadow
from restructure.shape.table import Column, Table, read_relation


@dataclass(frozen=True, slots=True)
class ReturningColumn:
    """An old column, and what it holds after a revert.

    ``how`` is "filled" by ``expression`` over the new row, "kept" where the new table has nothing
    of it, "lost" where what is written after the cutover does not reach it, or "generated".
    A "kept" or "lost" column of a row that is new then gets ``default``, None for NULL. Where it
    takes no NULL, such a ``row_refused`` cannot go back.
    """

    column: str
    how: str
    expression: str | None = None
    default: str | None = None
    row_refused: bool = False


@dataclass(frozen=True, slots=True)
class WayBackPreview:
    """``why`` there will be no way back; empty where there will be one, for the time ``window``."""

    why: str
    window: str
    columns: tuple[ReturningColumn, ...] = ()

    def as_json(self) -> dict[str, Any] | None:
        """None where there will be none: a warning of the preflight says why."""
        if self.why:
            return None
        return {"window": self.window, "columns": [asdict(column) for column in self.columns]}


class BackComposer:
    """Composes what makes the way back, around a shadow with its key that exists in a transaction."""

    def __init__(
        self,
        connection: Connection,
        loaded: LoadedPlan,
        source: Table,
        shadow: Shadow,
        names: Names,
    ) -> None:
        self._connection = connection
        self._loaded = loaded
        self._source = source
        self._shadow = shadow
        self._names = names.other
        self._retired = replace(source.relation, schema=names.retired_schema)
        self._window = loaded.plan.cutover.revert_window
        self._back = shadow.back
        self._mapping = shadow.back.mapping if shadow.back and self._window else None
        self._new = as_source(read_relation(connection, shadow.relation.oid), shadow.mapping)

    def described(self) -> WayBackPreview:
        """In words: each old column and where its values come from."""
        window = format_duration(self._window)
        if self._mapping is None:
            because = self._back.why if self._back and self._window else "revert_window is 0"
            return WayBackPreview(because, window)
        columns = tuple(self._returning())
        return WayBackPreview("", window, columns)

    def before_lock(self) -> Iterator[PlannedStep]:
        """What is made before each try for the lock, unless it is there already."""
        if self._mapping is None:
            return
        names = self._names
        keeping = f"; CREATE TABLE {STATE_SCHEMA}.{names.kept} (…)" if self._kept() else ""
        yield PlannedStep(
            Phase.CUTOVER,
            f"CREATE TABLE {STATE_SCHEMA}.{names.spool} (…); "
            f"CREATE TABLE {STATE_SCHEMA}.{names.quarantine} (…){keeping}",
            "none",
            "for the way back: keys that change after the swap; keys whose rows the old shape refuses"
            + ("; values that only the old table has" if keeping else ""),
        )
        if self._loaded.plan.stream["kind"] != "pgoutput":
            return
        recorder = Recorder(self._connection)
        publication.create(recorder, names.publication, self._new.watched)
        yield from (
            PlannedStep(Phase.CUTOVER, step.text, step.lock, f"for the way back: {step.why}")
            for step in recorder.steps
        )
        yield PlannedStep(
            Phase.CUTOVER,
            f"CREATE_REPLICATION_SLOT \"{names.slot}\" LOGICAL pgoutput (SNAPSHOT 'export')",
            "none",
            "for the way back: what clients write after the swap is kept for us; waits for "
            "transactions that are under way, before the lock",
        )

    def retiring(self) -> Iterator[PlannedStep]:
        """What is done to the retired table, so that it may be written to and hurt nobody."""
        if self._mapping is None:
            return
        yield PlannedStep(
            Phase.LIVE,
            f"-- take triggers, rules, policies and row-level security off {self._retired}, where it "
            "has them; its identity columns take any value",
            f"ACCESS EXCLUSIVE on {self._retired}",
            "the new table has them now; here they would act on the rows that keep it in step",
        )

    def following(self) -> Iterator[PlannedStep]:
        """What runs for as long as a process stays."""
        if self._mapping is None:
            return
        new = self._source.relation
        transform = Transform(
            new,
            self._retired,
            self._mapping,
            Spool(self._names, self._new.source.key),
            self._kept(),
        )
        yield PlannedStep(
            Phase.LIVE,
            shown(transform.merge(divided=False).as_string(self._connection)),
            f"ACCESS SHARE on {new}, ROW EXCLUSIVE on {self._retired}",
            "keeps the old table in step, for "
            f"{format_duration(self._window)} at most, so that a revert loses nothing",
        )

    def _kept(self) -> tuple[Column, ...]:
        assert self._mapping is not None
        return kept(self._source, self._mapping)

    def _returning(self) -> Iterator[ReturningColumn]:
        assert self._mapping is not None and self._back is not None
        filled = {column.name: column.expression for column in self._mapping.filled}
        refused = never_filled(self._connection, self._source, self._mapping)
        for column in self._source.columns:
            name = column.name
            if name in filled:
                yield ReturningColumn(name, "filled", filled[name])
            elif column.generated:
                yield ReturningColumn(name, "generated")
            else:
                default = "its next identity value" if column.identity else column.default_sql
                how = "lost" if name in self._back.lost else "kept"
                yield ReturningColumn(name, how, default=default, row_refused=name in refused)
