"""Which expression over the old row fills each column of the new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from restructure.errors import PlanError
from restructure.plan.load import LoadedPlan
from restructure.plan.source import Path
from restructure.postgres.connect import Connection
from restructure.shape.expressions import Expression, ExpressionReader, Target
from restructure.shape.indexes import index_beginning_with
from restructure.shape.keys import can_be_hashed, described, equality, holds, takes_no_null
from restructure.shape.table import Column, Table


@dataclass(frozen=True, slots=True)
class FilledColumn:
    """A new column and the SQL expression over the old row that fills it.

    Expressions see the old row under the source table's own name, and have the column's base
    type, *without* its length: the assignment into the column checks that, as a client's would.
    ``type_sql`` is the column's full type. Columns that the shadow fills itself
    (default, identity, generated) are not listed at all. ``origin`` is the old column whose
    value it holds, as it is or after one cast; None where the expression does more. ``reads``
    are the old columns that it is made of.
    """

    name: str
    expression: str
    type_sql: str = ""
    origin: str | None = None
    reads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key column of the source and the column of the shadow that holds it.

    The shadow's value is ``CAST(source value AS target_type)``. ``source_equals`` and
    ``target_equals`` are the operators by which two values of the one or the other type are
    the same key. ``hashed``: whether the source's type can be hashed.
    """

    source: str
    target: str
    target_type: str
    source_equals: str = "="
    target_equals: str = "="
    hashed: bool = True


@dataclass(frozen=True, slots=True)
class Mapping:
    """The transform: everything needed to compose copy, catch-up and verify.

    ``where`` tells which rows are read. ``ours`` is a condition over rows of the *target*: of those
    for which it is not true nothing was ever read from there, and nothing may happen to them.
    """

    filled: tuple[FilledColumn, ...]
    key: tuple[KeyPair, ...]
    where: str | None
    ours: str | None = None


@dataclass(frozen=True, slots=True)
class WayBack:
    """How rows of the new table become rows of the old one, should one go back.

    ``mapping`` is None where nothing can, for the reason ``why``. ``lost`` are the old columns of
    which the new table holds something, but nothing says how they are made from it.
    """

    mapping: Mapping | None
    why: str = ""
    lost: tuple[str, ...] = ()


def derive_mapping(
    connection: Connection,
    source: Table,
    shadow: Table,
    loaded: LoadedPlan,
    kept: dict[str, str] | None = None,
) -> Mapping:
    """Apply the plan's mapping rules. Raises PlanError where they leave something open.

    ``kept``, of the short form, are the old columns that ``alter`` left, each with its name
    in the shadow. Without it (the long form) names alone decide.
    """
    return _Derivation(connection, source, shadow, loaded, kept).mapping()


class _Derivation:
    def __init__(
        self,
        connection: Connection,
        source: Table,
        shadow: Table,
        loaded: LoadedPlan,
        kept: dict[str, str] | None,
    ) -> None:
        self._connection = connection
        self._source = source
        self._shadow = shadow
        self._loaded = loaded
        self._plan = loaded.plan
        alive = {column.name for column in shadow.columns}
        by_name = {c.name: c.name for c in source.columns if c.name in alive}
        self._kept = by_name if kept is None else kept
        self._short = kept is not None
        self._origin = {new: old for old, new in self._kept.items()}
        self._read: dict[str, Expression] = {}
        self._reader = ExpressionReader(
            connection, loaded, source.relation, source.relation.name, shadow.relation.schema
        )

    def mapping(self) -> Mapping:
        self._names_must_exist()
        filled = tuple(
            found for column in self._shadow.columns if (found := self._fill(column)) is not None
        )
        key = tuple(self._key_pair(key.name, filled) for key in self._source.key)
        self._key_must_be_indexed(key)
        self._nothing_left_behind(filled)
        where = None
        if self._plan.where is not None:
            where = self._reader.condition(("where",), self._plan.where).sql
        return Mapping(filled, key, where)

    def _names_must_exist(self) -> None:
        new = [column.name for column in self._shadow.columns]
        old = [column.name for column in self._source.columns]
        for name in self._plan.columns:
            self._must_be_one_of(name, new, "the new table", ("columns", name))
        for name in self._plan.reverse:
            self._must_be_one_of(name, old, str(self._source.relation), ("reverse", name))
        for index, name in enumerate(self._plan.drop):
            self._must_be_one_of(name, old, str(self._source.relation), ("drop", index))
            target = self._kept.get(name)
            if target is not None and target not in self._plan.columns:
                raise PlanError(
                    f"drop: column {name!r} is still in the new table, as {target!r}",
                    place=self._loaded.place("drop", index),
                    hint="Leave it out of drop, or out of the new table"
                    + (" with DROP COLUMN under alter." if self._short else "."),
                )

    def _must_be_one_of(self, name: str, known: list[str], table: str, path: Path) -> None:
        if name in known:
            return
        near = get_close_matches(name, known, 1) or get_close_matches(name.lower(), known, 1)
        raise PlanError(
            f"{path[0]}: {table} has no column {name!r}",
            place=self._loaded.place(*path),
            hint=f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}.",
        )

    def _fill(self, column: Column) -> FilledColumn | None:
        """The rules in their order: columns, the old column, its own default, or NULL."""
        name = column.name
        if name in self._plan.columns:
            if column.generated:
                raise PlanError(
                    f"columns: {name!r} is a generated column, which PostgreSQL fills itself",
                    place=self._loaded.place("columns", name),
                    hint="Leave it out of columns.",
                )
            target = Target(self._shadow.relation, name, column.type_oid)
            read = self._reader.fill(("columns", name), self._plan.columns[name], target)
            self._read[name] = read
            held = next((c.name for c in self._source.columns if c.number == read.holds), None)
            reads = (c.name for c in self._source.columns if {c.number, 0} & read.reads)
            return FilledColumn(name, read.sql, column.type_sql, held, tuple(reads))
        if column.generated:
            return None
        if name in self._origin:
            value = self._old_column(column)
            origin = self._origin[name]
            return FilledColumn(name, value, column.type_sql, origin, (origin,))
        if self._source.column(name) is not None:
            raise PlanError(
                f"{name!r} is a new column, and was the name of an old one: "
                "what shall its values be?",
                place=self._loaded.about(name),
                hint="Say it under columns, for example"
                f" {name}: NULL, or {name}: the expression that keeps the old values.",
            )
        if column.default_sql is None and not column.identity and self._needs_value(column):
            raise PlanError(
                f"{name!r} is a NOT NULL target without a source",
                place=self._loaded.about(name),
                hint="Give it an expression under columns, or a DEFAULT.",
            )
        return None

    def _old_column(self, column: Column) -> str:
        """The old column as it is, or cast where an assignment cast exists."""
        old = self._source.column(self._origin[column.name])
        assert old is not None
        target = Target(self._shadow.relation, column.name, column.type_oid)
        try:
            return self._reader.assigned(("columns", column.name), old, column, target)
        except PlanError:
            raise PlanError(
                f"column {column.name!r}: no assignment cast from {old.type_sql}"
                f" to {column.type_sql}",
                place=self._loaded.about(column.name),
                hint="Give it an expression under columns.",
            ) from None

    def _needs_value(self, column: Column) -> bool:
        return takes_no_null(self._connection, column.type_oid, column.not_null)

    def _key_pair(self, key: str, filled: tuple[FilledColumn, ...]) -> KeyPair:
        """Find the column of the shadow that holds the key column, one value for one."""
        old = self._source.column(key)
        assert old is not None
        refused: list[str] = []
        for column in filled:
            if column.origin != key:
                continue
            read = self._read.get(column.name)
            new = self._shadow.column(column.name)
            assert new is not None
            reference = (self._source.relation.oid, old.number)
            holder = (self._shadow.relation.oid, new.number)
            if holds(self._connection, reference, read.type if read else None, holder):
                return KeyPair(
                    key,
                    column.name,
                    new.type_sql,
                    equality(self._connection, old.type_oid),
                    equality(self._connection, new.type_oid),
                    can_be_hashed(self._connection, old.type_oid),
                )
            refused.append(f"{new.name!r} ({described(new, old)})")
            shown = described(old, new)
        if refused:
            raise PlanError(
                f"key column {key!r} ({shown}) is not certain to stay the same key in"
                f" {' or '.join(refused)}",
                place=self._loaded.about(self._kept.get(key, key)),
                hint="Two keys could become equal, or equal ones differ. Keep the type, or a wider"
                " one of the same kind.",
            )
        raise PlanError(
            f"key column {key!r} has no column in the new table that holds it",
            place=self._loaded.about(key),
            hint="Keep it: rows are found by it. The new table's own primary key may be another.",
        )

    def _key_must_be_indexed(self, key: tuple[KeyPair, ...]) -> None:
        if not key:
            return
        numbers = {c.number for c in self._shadow.columns if c.name in {p.target for p in key}}
        if index_beginning_with(self._connection, self._shadow.relation.oid, numbers) is None:
            names = ", ".join(pair.target for pair in key)
            raise PlanError(
                f"the new table has no index that begins with the key ({names})",
                place=self._loaded.place("create" if self._plan.create else "alter"),
                hint="Add one, unique or not, but not partial: changed rows are found by it. A unique "
                "one over some of its columns does too.",
            )

    def _nothing_left_behind(self, filled: Iterable[FilledColumn]) -> None:
        read: set[int] = set()
        for column in filled:
            if column.name in self._read:
                read |= self._read[column.name].reads
            else:
                old = self._source.column(self._origin[column.name])
                assert old is not None
                read.add(old.number)
        if 0 in read:  # the whole row
            return
        left = [
            old.name
            for old in self._source.columns
            if old.number not in read
            and old.name not in self._plan.drop
            and not (old.generated and self._is_generated(self._kept.get(old.name)))
            and not (self._short and old.name not in self._kept)
        ]
        if left:
            names = ", ".join(repr(name) for name in left)
            raise PlanError(
                f"nothing in the new table reads the old column{'s' * (len(left) > 1)} {names}",
                place=self._loaded.place("drop" if self._plan.drop else "create"),
                hint="Read it under columns, or name it under drop to leave its data behind.",
            )

    def _is_generated(self, name: str | None) -> bool:
        column = self._shadow.column(name) if name is not None else None
        return column is not None and bool(column.generated)
