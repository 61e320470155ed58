"""The new row beside the old one, as SQL over the source alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from restructure.engine.trial.lengths import excess
from restructure.engine.trial.rule import ALIAS, Rule, column
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.casts import column_facts
from restructure.shape.deparse import printed
from restructure.shape.mapping import Mapping
from restructure.shape.table import Column, Table

_COMMA = sql.SQL(", ")


@dataclass(frozen=True, slots=True)
class NewColumn:
    """How one column of the new row comes about.

    ``value`` is an expression over the old row or, of a ``generated`` column, over the new one.
    ``excess`` is true where the value, called by :attr:`raw`, is too long for the column; None where
    none can be. ``unchanged``: an old column as it is.
    """

    number: int
    name: str
    value: str
    type_sql: str
    collation_sql: str | None
    generated: bool
    unchanged: bool
    excess: sql.Composable | None

    @property
    def raw(self) -> sql.Identifier:
        return _raw(self.number)

    @property
    def fault(self) -> sql.Identifier:
        """The name of the flag that says that the value was too long, and is NULL therefore."""
        return sql.Identifier(f"restructure fault {self.number}")

    def typed(self) -> sql.Composed:
        """The value as the column holds it."""
        if self.unchanged:
            return sql.SQL("{}").format(self.raw)
        held: sql.Composable = sql.SQL("CAST({} AS {})").format(self.raw, printed(self.type_sql))
        if self.excess is not None:
            held = sql.SQL("CASE WHEN ({}) IS TRUE THEN NULL ELSE {} END").format(self.excess, held)
        if self.collation_sql is not None:
            held = sql.SQL("({}) COLLATE {}").format(held, printed(self.collation_sql))
        return sql.SQL("{}").format(held)


class NewRow:
    """Composes FROM items that yield the new rows under the name ALIAS.

    A column whose values only an INSERT would know (an identity, nextval()) is not among
    ``columns``: what looks at it does not parse. ``selective``: some rows are left behind.
    """

    def __init__(self, source: Table, mapping: Mapping, columns: Sequence[NewColumn]) -> None:
        self.source = source
        self.columns = tuple(columns)
        self.selective = mapping.where is not None
        self._alias = sql.Identifier(source.relation.name)
        self._where = (
            sql.SQL("({})").format(printed(mapping.where)) if mapping.where else sql.SQL("true")
        )
        self._keys = [
            sql.Identifier(f"restructure key {number}") for number in range(len(source.key))
        ]

    @property
    def key(self) -> sql.Composed:
        """The old row's key, each column as text."""
        texts = (sql.SQL("{}::text").format(key) for key in self._keys)
        return sql.SQL("ARRAY[{}]").format(_COMMA.join(texts))

    def within(self, leaf: Relation, first: str, end: str) -> sql.Composed:
        """The rows of one leaf from ctid ``first`` to before ``end``, each value made once."""
        condition = sql.SQL("{0}.ctid >= {1}::tid AND {0}.ctid < {2}::tid").format(
            self._alias, sql.Literal(first), sql.Literal(end)
        )
        place = sql.SQL("ONLY {}").format(leaf.identifier)
        return self._rows(place, condition, sql.SQL(" OFFSET 0"), ALIAS)

    def all(self, alias: str = ALIAS) -> sql.Composed:
        """All rows; the planner may use the source's indexes."""
        everywhere = sql.SQL("{}").format(self.source.relation.identifier)
        return self._rows(everywhere, sql.SQL("true"), sql.SQL(""), alias)

    def length_rules(self) -> list[Rule]:
        return [
            Rule("length", one.name, _of_new(one.fault), (one.name,))
            for one in self.columns
            if one.excess is not None
        ]

    def value_rules(self) -> list[Rule]:
        """One for each column whose value may raise: cast, expression, domain."""
        return [
            Rule("value", one.name, column(one.name), (one.name,), evaluated=True)
            for one in self.columns
            if not one.unchanged
        ]

    def sound(self, names: Iterable[str] | None) -> sql.Composed:
        """True where none of these columns (None: of all) is NULL for being too long.

        A generated one may depend on any.
        """
        wanted = None if names is None or self.generated(names) else set(names)
        faults = [
            _of_new(one.fault)
            for one in self.columns
            if one.excess is not None and (wanted is None or one.name in wanted)
        ]
        if not faults:
            return sql.SQL("{}").format(sql.SQL("true"))
        return sql.SQL("NOT ({})").format(sql.SQL(" OR ").join(faults))

    def generated(self, names: Iterable[str]) -> bool:
        return any(one.generated for one in self.columns if one.name in set(names))

    def _rows(
        self, place: sql.Composable, condition: sql.Composable, fence: sql.SQL, alias: str
    ) -> sql.Composed:
        first = [one for one in self.columns if not one.generated]
        later = [one for one in self.columns if one.generated]
        keys = [
            sql.SQL("{} AS {}").format(sql.Identifier(self.source.relation.name, old.name), key)
            for old, key in zip(self.source.key, self._keys, strict=True)
        ]
        rows = sql.SQL("(SELECT {} FROM {} AS {} WHERE {} AND {}{})").format(
            _COMMA.join([*keys, *map(_made, first)]),
            place,
            self._alias,
            condition,
            self._where,
            fence,
        )
        passed: list[sql.Composable] = [*self._keys]
        rows = _over(rows, [*passed, *_typed(first)], fence)
        if later:
            passed += [name for one in first for name in _names(one)]
            rows = _over(rows, [*passed, *map(_made, later)], fence)
            rows = _over(rows, [*passed, *_typed(later)], fence)
        return sql.SQL("{} AS {}").format(rows, sql.Identifier(alias))


def new_row(
    connection: Connection, looking: Connection, source: Table, shadow: Table, mapping: Mapping
) -> NewRow:
    """Describe the new row. ``connection`` sees the shadow, ``looking`` is read-only."""
    filled = {one.name: one.expression for one in mapping.filled}
    columns: list[NewColumn] = []
    for one in shadow.columns:
        value = filled.get(one.name) or one.default_sql
        if one.name not in filled and not one.generated:
            value = _default(connection, looking, one)
        if value is None:
            continue
        number = len(columns)
        unchanged = _unchanged(connection, source, one, value)
        facts = column_facts(connection, shadow.relation.oid, one.number)
        columns.append(
            NewColumn(
                number,
                one.name,
                value,
                one.type_sql,
                one.collation_sql,
                bool(one.generated),
                unchanged,
                None if unchanged else excess(connection, _raw(number), facts),
            )
        )
    return NewRow(source, mapping, columns)


def _default(connection: Connection, looking: Connection, new: Column) -> str | None:
    """What fills a column that the mapping does not; None where only an INSERT would know."""
    if new.identity:
        return None
    if new.default_sql is None:
        row = connection.execute(
            "SELECT typtype = 'd' FROM pg_catalog.pg_type WHERE oid = %s", [new.type_oid]
        ).fetchone()
        return None if row is None or row[0] else f"NULL::{new.type_sql}"
    try:
        looking.execute(sql.SQL("SELECT {}").format(printed(new.default_sql)))
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return new.default_sql


def _unchanged(connection: Connection, source: Table, new: Column, value: str) -> bool:
    return any(
        (old.type_oid, old.type_sql, old.collation_sql)
        == (new.type_oid, new.type_sql, new.collation_sql)
        and value == sql.Identifier(source.relation.name, old.name).as_string(connection)
        for old in source.columns
    )


def _raw(number: int) -> sql.Identifier:
    return sql.Identifier(f"restructure value {number}")


def _made(one: NewColumn) -> sql.Composed:
    return sql.SQL("({}) AS {}").format(printed(one.value), one.raw)


def _typed(columns: Iterable[NewColumn]) -> list[sql.Composed]:
    made: list[sql.Composed] = []
    for one in columns:
        made.append(sql.SQL("{} AS {}").format(one.typed(), sql.Identifier(one.name)))
        if one.excess is not None:
            made.append(sql.SQL("({}) IS TRUE AS {}").format(one.excess, one.fault))
    return made


def _names(one: NewColumn) -> list[sql.Identifier]:
    named = [sql.Identifier(one.name)]
    return [*named, one.fault] if one.excess is not None else named


def _over(rows: sql.Composed, columns: Sequence[sql.Composable], fence: sql.SQL) -> sql.Composed:
    return sql.SQL("(SELECT {} FROM {} AS {}{})").format(
        _COMMA.join(columns), rows, sql.Identifier(ALIAS), fence
    )


def _of_new(name: sql.Identifier) -> sql.Composed:
    return sql.SQL("{}.{}").format(sql.Identifier(ALIAS), name)
