"""Foreign keys of the new table, asked of the referenced tables as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from restructure.engine.trial.bounds import Bounds, Unjudged
from restructure.engine.trial.new_row import NewRow
from restructure.engine.trial.rule import NotLookedAt, Rule, column
from restructure.postgres.connect import Connection
from restructure.shape.foreign import read_late_constraints
from restructure.shape.keys import equality
from restructure.shape.shadow import Shadow
from restructure.shape.table import Table

_NAME = r'(?:"(?:[^"]|"")+"|[^\s"(),.]+)'
_NAMES = rf"((?:PERIOD )?{_NAME}(?:, (?:PERIOD )?{_NAME})*)"
_KEY = re.compile(
    rf"FOREIGN KEY \({_NAMES}\) REFERENCES ({_NAME})\.({_NAME})\({_NAMES}\)( MATCH FULL)?"
)
_ADD = re.compile(rf"ALTER TABLE (?:ONLY )?({_NAME})\.({_NAME}) ADD CONSTRAINT ({_NAME}) ")
_VALIDATE = re.compile(rf"ALTER TABLE (?:ONLY )?({_NAME})\.({_NAME}) VALIDATE CONSTRAINT ({_NAME})")
_PARENT = "restructure_parent"


@dataclass(frozen=True, slots=True)
class _Key:
    """What a foreign key says: names as the catalogs have them."""

    columns: tuple[str, ...]
    target: tuple[str, str]
    target_columns: tuple[str, ...]
    full: bool
    period: bool


class References:
    """Reads the foreign keys that were set aside, and makes a rule of each that is not certain."""

    def __init__(
        self,
        connection: Connection,
        source: Table,
        table: Table,
        shadow: Shadow,
        row: NewRow,
        held: dict[str, str],
        bounds: Bounds,
    ) -> None:
        self._connection = connection
        self._source = source
        self._leaves = {} if not table.partitioned else {one.name: one.oid for one in table.leaves}
        self._row = row
        self._held = held
        self._bounds = bounds
        self._itself = (source.relation.schema, source.relation.name)
        self.rules: list[Rule] = []
        self.not_looked_at: list[NotLookedAt] = []
        found = list(_set_aside(shadow))
        everywhere = {key for table_name, _, key in found if table_name == self._itself}
        there = self._of_source()
        for place, name, key in found:
            if place != self._itself and key in everywhere:
                continue  # the leaf's share of the root's
            if not self._certain(key, there):
                self._add(name, key, place)

    def _of_source(self) -> set[_Key]:
        constraints = read_late_constraints(self._connection, [self._source.relation])
        found = (_read(one.definition) for one in constraints if one.to_validate)
        return {key for key in found if key is not None}

    def _certain(self, new: _Key, there: set[_Key]) -> bool:
        """Whether the source has the same on columns that hold the same values."""
        if new.target == self._itself and self._row.selective:
            return False  # the parent may be left behind
        old = tuple(self._held.get(name, "") for name in new.columns)
        target = new.target_columns
        if new.target == self._itself:
            target = tuple(self._held.get(name, "") for name in target)
        return _Key(old, new.target, target, new.full, new.period) in there

    def _add(self, name: str, key: _Key, place: tuple[str, str]) -> None:
        if key.period:
            why = "periods are compared when it is validated, after the swap"
            self.not_looked_at.append(NotLookedAt("foreign_key", name, why))
            return
        values = [column(one) for one in key.columns]
        missing = sql.SQL("NOT EXISTS (SELECT FROM {} WHERE {})").format(
            self._parent(key), sql.SQL(" AND ").join(self._matches(key))
        )
        all_there = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(one) for one in values)
        broken = sql.SQL("({} AND {})").format(all_there, missing)
        if key.full:
            some = sql.SQL("num_nulls({}) NOT IN (0, {})").format(
                sql.SQL(", ").join(values), sql.Literal(len(values))
            )
            broken = sql.SQL("({} OR {})").format(some, broken)
        if place != self._itself:
            try:
                inside = self._bounds.inside(self._leaves[place[1]])
            except Unjudged as why:
                self.not_looked_at.append(NotLookedAt("foreign_key", name, str(why)))
                return
            broken = sql.SQL("CASE WHEN {} THEN {} END").format(inside, broken)
            self.rules.append(Rule("foreign_key", name, broken))
            return
        self.rules.append(Rule("foreign_key", name, broken, key.columns))

    def _parent(self, key: _Key) -> sql.Composable:
        if key.target == self._itself:
            return self._row.all(_PARENT)
        row = self._connection.execute(
            "SELECT c.relkind <> 'p' FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE (n.nspname, c.relname) = (%s, %s)",
            key.target,
        ).fetchone()
        only = sql.SQL("ONLY " if row is not None and row[0] else "")
        return sql.SQL("{}{} AS {}").format(
            only, sql.Identifier(*key.target), sql.Identifier(_PARENT)
        )

    def _matches(self, key: _Key) -> Iterator[sql.Composable]:
        for name, target in zip(key.columns, key.target_columns, strict=True):
            operator = "="
            row = self._connection.execute(
                "SELECT a.atttypid::int8 FROM pg_catalog.pg_attribute a"
                " JOIN pg_catalog.pg_class c ON c.oid = a.attrelid"
                " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
                " WHERE (n.nspname, c.relname, a.attname) = (%s, %s, %s)",
                (*key.target, target),
            ).fetchone()
            if row is not None and key.target != self._itself:
                operator = equality(self._connection, row[0])
            yield sql.SQL("{} {} {}").format(
                sql.Identifier(_PARENT, target), sql.SQL(operator), column(name)
            )


def _set_aside(shadow: Shadow) -> Iterator[tuple[tuple[str, str], str, _Key]]:
    """Table, name and meaning of each foreign key that will hold for all rows in the end."""
    validated = {
        _names(*found.groups())
        for one in shadow.set_aside
        if (found := _VALIDATE.match(one.statement)) is not None
    }
    for one in shadow.set_aside:
        added = _ADD.match(one.statement)
        key = _read(one.statement[added.end() :]) if added is not None else None
        if added is None or key is None:
            continue
        schema, table, name = _names(*added.groups())
        if one.moment == "after" or (schema, table, name) in validated:
            yield (schema, table), name, key


def _read(definition: str) -> _Key | None:
    found = _KEY.match(definition)
    if found is None:
        return None
    columns, schema, table, target_columns, full = found.groups()
    period = " PERIOD " in f" {columns}"
    return _Key(
        _split(columns),
        (_unquoted(schema), _unquoted(table)),
        _split(target_columns),
        bool(full),
        period,
    )


def _split(names: str) -> tuple[str, ...]:
    return tuple(_unquoted(name) for name in re.findall(_NAME, names) if name != "PERIOD")


def _names(*quoted: str) -> tuple[str, ...]:
    return tuple(_unquoted(name) for name in quoted)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
