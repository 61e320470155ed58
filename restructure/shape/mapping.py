"""Which expression over the old row fills each column of the new one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from psycopg import sql

from restructure.errors import Place, PlanError
from restructure.plan.load import LoadedPlan
from restructure.plan.source import Path
from restructure.postgres.connect import Connection
from restructure.shape.casts import base_type_sql, column_facts, keeps_identity
from restructure.shape.expressions import Expression, ExpressionReader, Target
from restructure.shape.indexes import index_beginning_with
from restructure.shape.table import Column, Table


@dataclass(frozen=True, slots=True)
class FilledColumn:
    """A new column and the SQL expression over the old row that fills it.

    Expressions see the old row under the source table's own name, and have the column's base
    type, *without* its length: the assignment into the column checks that, as a client's would.
    ``type_sql`` is the column's full type. Columns that the shadow fills itself
    (default, identity, generated) are not listed at all. ``origin`` is the old column whose
    value it holds, as it is or after one cast; None where the expression does more.
    """

    name: str
    expression: str
    type_sql: str = ""
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key column of the source and the column of the shadow that holds it.

    The shadow's value is ``CAST(source value AS target_type)``.
    """

    source: str
    target: str
    target_type: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """The transform: everything needed to compose copy, catch-up and verify."""

    filled: tuple[FilledColumn, ...]
    key: tuple[KeyPair, ...]
    where: str | None


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
        self._check_reverse()
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
            return FilledColumn(name, read.sql, column.type_sql, held)
        if column.generated:
            return None
        if name in self._origin:
            value = self._old_column(column)
            return FilledColumn(name, value, column.type_sql, self._origin[name])
        if self._source.column(name) is not None:
            raise PlanError(
                f"{name!r} is a new column, and was the name of an old one: "
                "what shall its values be?",
                place=self._place_of(name),
                hint="Say it under columns, for example"
                f" {name}: NULL, or {name}: the expression that keeps the old values.",
            )
        if column.default_sql is None and not column.identity and self._refuses_null(column):
            raise PlanError(
                f"{name!r} is a NOT NULL target without a source",
                place=self._place_of(name),
                hint="Give it an expression under columns, or a DEFAULT.",
            )
        return None

    def _old_column(self, column: Column) -> str:
        """The old column as it is, or cast where an assignment cast exists."""
        old = self._source.column(self._origin[column.name])
        assert old is not None
        reference = sql.Identifier(self._source.relation.name, old.name)
        written = reference.as_string(self._connection)
        if (old.type_oid, old.type_sql) == (column.type_oid, column.type_sql):
            return written
        try:
            target = Target(self._shadow.relation, column.name, column.type_oid)
            self._reader.try_assignment(("columns", column.name), written, target)
        except PlanError:
            raise PlanError(
                f"column {column.name!r}: no assignment cast from {old.type_sql}"
                f" to {column.type_sql}",
                place=self._place_of(column.name),
                hint="Give it an expression under columns.",
            ) from None
        if old.type_oid == column.type_oid:
            return written
        return f"CAST({written} AS {base_type_sql(self._connection, column.type_oid)})"

    def _refuses_null(self, column: Column) -> bool:
        """Whether neither the column nor a domain it is of takes NULL or has a default."""
        row = self._connection.execute(_DOMAIN, {"oid": column.type_oid}).fetchone()
        not_null, has_default = row or (False, False)
        return (column.not_null or not_null) and not has_default

    def _key_pair(self, key: str, filled: tuple[FilledColumn, ...]) -> KeyPair:
        old = self._source.column(key)
        assert old is not None
        facts = column_facts(self._connection, self._source.relation.oid, old.number)
        refused: list[str] = []
        for name in (column.name for column in filled):
            read = self._read.get(name)
            if read.holds != old.number if read else self._origin.get(name) != key:
                continue
            new = self._shadow.column(name)
            assert new is not None
            new_facts = column_facts(self._connection, self._shadow.relation.oid, new.number)
            between = read.type if read else facts
            if keeps_identity(facts, between) and keeps_identity(between, new_facts):
                # the reader printed an expression's type; a plain cast is the same here
                return KeyPair(key, name, new.type_sql)
            refused.append(f"{name!r} ({new.type_sql}{_collated(old, new)})")
        if refused:
            raise PlanError(
                f"key column {key!r} ({old.type_sql}{_collated(new, old)}) is not certain to stay"
                f" the same key in {' or '.join(refused)}",
                place=self._place_of(self._kept.get(key, key)),
                hint="Two keys could become equal, or equal ones differ. Keep the type, or a wider"
                " one of the same kind.",
            )
        raise PlanError(
            f"key column {key!r} has no column in the new table that holds it",
            place=self._place_of(key),
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
                hint="Add one, unique or not, but not partial: changed rows are found by it.",
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
            and not (self._short and old.name not in self._kept)
        ]
        if left:
            names = ", ".join(repr(name) for name in left)
            raise PlanError(
                f"nothing in the new table reads the old column{'s' * (len(left) > 1)} {names}",
                place=self._loaded.place("drop" if self._plan.drop else "create"),
                hint="Read it under columns, or name it under drop to leave its data behind.",
            )

    def _check_reverse(self) -> None:
        if not self._plan.reverse:
            return
        reader = ExpressionReader(
            self._connection,
            self._loaded,
            self._shadow.relation,
            self._source.relation.name,
            self._shadow.relation.schema,
        )
        for name, text in self._plan.reverse.items():
            old = self._source.column(name)
            assert old is not None
            if old.generated:
                raise PlanError(
                    f"reverse: {name!r} is a generated column, which PostgreSQL fills itself",
                    place=self._loaded.place("reverse", name),
                )
            target = Target(self._source.relation, name, old.type_oid, like=True)
            reader.fill(("reverse", name), text, target)

    def _place_of(self, column: str) -> Place:
        """Where the plan speaks of a column, found by its name: good enough to point at."""
        if column in self._plan.columns:
            return self._loaded.place("columns", column)
        for index, clause in enumerate(self._plan.alter):
            if column.lower() in clause.lower():
                return self._loaded.place("alter", index)
        if self._plan.create is not None:
            at = self._plan.create.lower().find(column.lower())
            return self._loaded.inside(("create",), max(at, 0))
        return self._loaded.place("alter")


_DOMAIN = """
WITH RECURSIVE base AS (
    SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = %(oid)s
    UNION ALL
    SELECT t.* FROM base b JOIN pg_catalog.pg_type t ON t.oid = b.typbasetype WHERE b.typtype = 'd')
SELECT coalesce(bool_or(typnotnull), false), coalesce(bool_or(typdefault IS NOT NULL), false)
FROM base
"""


def _collated(one: Column, other: Column) -> str:
    """``other``'s collation, where that is what differs."""
    if one.collation_sql == other.collation_sql or other.collation_sql is None:
        return ""
    return f" COLLATE {other.collation_sql}"
