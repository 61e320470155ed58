"""The two tables of a job, as each direction sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from restructure.catalog.job import Job
from restructure.errors import SchemaDrift, UsageError
from restructure.model.names import Direction
from restructure.model.relation import Watched
from restructure.postgres.connect import Connection
from restructure.shape.made import Shadow
from restructure.shape.mapping import Mapping
from restructure.shape.table import Column, Table, read_relation


@dataclass(frozen=True, slots=True)
class Sides:
    """``source`` is what clients use and rows are read from, ``shadow`` what is filled.

    ``source.key`` are the columns that rows travel by. ``kept`` are the columns of the shadow that
    nothing fills and that have values of their own, once clients have used it.
    """

    source: Table
    watched: Watched
    shadow: Shadow | None = None
    kept: tuple[Column, ...] = ()


def sides(connection: Connection, job: Job, direction: Direction) -> Sides:
    """Look both up as they are now. Raises SchemaDrift where one was dropped."""
    shadow = Shadow.from_json(job.shadow) if job.shadow else None
    if direction is Direction.REVERSE:
        assert shadow is not None, "there is no way back before setup"
        return _reverse(connection, job, shadow)
    source = _read(connection, job, job.source)
    if shadow is None or job.reverse is None:
        return Sides(source, watched(source), shadow)
    return _with_target(connection, job, source, watched(source), shadow)


def new_table(connection: Connection, job: Job, forward: Shadow) -> Sides:
    """The new table as what the reverse direction reads, wherever it stands."""
    return as_source(_read(connection, job, forward.relation.oid), forward.mapping)


def as_source(new: Table, mapping: Mapping) -> Sides:
    """The new table as what rows are read from, by the columns that hold the old key."""
    identity = {column.name: column for column in new.key}
    key = tuple(identity[pair.target] for pair in mapping.key if pair.target in identity)
    source = replace(new, key=key)
    return Sides(
        source,
        Watched(new.leaves, key, full_identity=new.replica_identity == "f", identity=new.key),
    )


def watched(source: Table) -> Watched:
    """What the stream has to follow for this source: its leaves, by its key."""
    return Watched(source.leaves, source.key, full_identity=source.replica_identity == "f")


def kept(table: Table, mapping: Mapping) -> tuple[Column, ...]:
    """The columns of ``table`` that ``mapping`` does not fill."""
    filled = {column.name for column in mapping.filled}
    return tuple(c for c in table.columns if not c.generated and c.name not in filled)


def _reverse(connection: Connection, job: Job, forward: Shadow) -> Sides:
    found = new_table(connection, job, forward)
    if job.reverse is None or job.given_up is not None:
        return found  # the retired table may be gone
    return _with_target(connection, job, found.source, found.watched, Shadow.from_json(job.reverse))


def _with_target(
    connection: Connection, job: Job, source: Table, followed: Watched, shadow: Shadow
) -> Sides:
    """The shadow by where it stands now: it has moved with each swap."""
    table = _read(connection, job, shadow.relation.oid)
    placed = replace(shadow, relation=table.relation, leaves=table.leaves, branches=table.branches)
    return Sides(source, followed, placed, kept(table, shadow.mapping))


def _read(connection: Connection, job: Job, oid: int) -> Table:
    try:
        return read_relation(connection, oid)
    except UsageError:
        raise SchemaDrift(
            f"table {job.source_name} was dropped",
            hint=f"restructure abort {job.name} removes what is left of the job.",
        ) from None
