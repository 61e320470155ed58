"""What the new table demands of its rows, read from the empty shadow while it is there."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from restructure.engine.trial.bounds import Bounds, Unjudged
from restructure.engine.trial.new_row import NewRow
from restructure.engine.trial.references import References
from restructure.engine.trial.rule import Demands, NotLookedAt, Rule, Unique, column
from restructure.postgres.connect import Connection
from restructure.shape.carry.bound import bound_checks
from restructure.shape.deparse import canonical, printed
from restructure.shape.keys import holds
from restructure.shape.mapping import Mapping
from restructure.shape.shadow import Shadow
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class _Index:
    """``parts`` as pg_get_indexdef prints them; ``names`` are NULL for expressions.

    ``plain``: each part compares as its column does.
    """

    table: int
    name: str
    unique: bool
    exclusion: bool
    nulls_distinct: bool
    predicate: str | None
    parts: list[str]
    names: list[str | None]
    plain: bool
    definition: str


def read_demands(
    connection: Connection, source: Table, table: Table, shadow: Shadow, row: NewRow
) -> Demands:
    """Read them in the transaction that made ``table``, the shadow.

    What was set aside as an index is made again in it. What the source has already, on columns that
    hold the same values, is left out of uniques and foreign keys: it holds.
    """
    for aside in shadow.set_aside:
        if aside.moment in ("key", "index"):
            connection.execute(printed(aside.statement))
    return _Reading(connection, source, table, shadow, row).demands


class _Reading:
    def __init__(
        self, connection: Connection, source: Table, table: Table, shadow: Shadow, row: NewRow
    ) -> None:
        self._connection = connection
        self._source = source
        self._table = table
        self._row = row
        self._bounds = Bounds(connection, table.relation.oid)
        self._held = _held(connection, source, table, shadow.mapping)
        self.demands = Demands([], [], [])
        self._not_nulls()
        self._checks()
        self._partitions()
        self._indexes()
        references = References(connection, source, table, shadow, row, self._held, self._bounds)
        self.demands.rules += references.rules
        self.demands.not_looked_at += references.not_looked_at

    def _not_nulls(self) -> None:
        with canonical(self._connection):
            rows = self._connection.execute(
                _NOT_NULLS, {"tables": self._members, "root": self._table.relation.oid}
            ).fetchall()
        made = {one.name for one in self._row.columns}
        for table, name in rows:
            old = self._source.column(self._held.get(name, ""))
            if name not in made or (old is not None and old.not_null):
                continue
            broken = sql.SQL("{} IS NULL").format(column(name))
            self._rule(Rule("not_null", name, broken, (name,)), table)

    def _checks(self) -> None:
        of_place = bound_checks(self._connection, self._table.relation)
        with canonical(self._connection):
            rows = self._connection.execute(
                _CHECKS, {"tables": self._members, "root": self._table.relation.oid}
            ).fetchall()
        for table, name, expression, columns in rows:
            broken = sql.SQL("({}) IS FALSE").format(printed(expression))
            if name in of_place:
                place = f"the place of {self._source.relation} in its parent"
                self._rule(Rule("partition", place, broken, tuple(columns)), table)
            else:
                self._rule(Rule("check", name, broken, tuple(columns)), table)

    def _partitions(self) -> None:
        name = str(self._source.relation)
        try:
            fit = self._bounds.fit()
        except Unjudged as why:
            self.demands.not_looked_at.append(NotLookedAt("partition", name, str(why)))
            return
        if fit is not None:
            broken = sql.SQL("({}) IS NOT TRUE").format(fit)
            self.demands.rules.append(Rule("partition", name, broken))

    def _indexes(self) -> None:
        there = _read_indexes(self._connection, [self._source.relation.oid])
        for index in _read_indexes(self._connection, self._members):
            predicate = None if index.predicate is None else printed(f"({index.predicate}) IS TRUE")
            if index.exclusion:
                if not self._same_exclusion(index, there):
                    why = "whether two rows exclude each other is found out by building the index"
                    self.demands.not_looked_at.append(NotLookedAt("exclude", index.name, why))
                continue
            for part, name in zip(index.parts, index.names, strict=True):
                if name is None:
                    value: sql.Composable = printed(part)
                    if predicate is not None:
                        value = sql.SQL("CASE WHEN {} THEN {} END").format(predicate, value)
                    self._rule(Rule("index", index.name, value, evaluated=True), index.table)
            if predicate is not None:
                self._rule(Rule("index", index.name, predicate, evaluated=True), index.table)
            if index.unique and not any(self._implies(old, index) for old in there):
                self._unique(index, predicate)

    def _unique(self, index: _Index, predicate: sql.Composable | None) -> None:
        try:
            inside = self._inside(index.table)
        except Unjudged as why:
            self.demands.not_looked_at.append(NotLookedAt("unique", index.name, str(why)))
            return
        terms = [term for term in (predicate, inside) if term is not None]
        condition = sql.SQL(" AND ").join(terms) if terms else None
        names = tuple(name for name in index.names if name is not None)
        columns = names if len(names) == len(index.names) else None
        parts = tuple(index.parts)
        self.demands.uniques.append(
            Unique(index.name, parts, columns, condition, index.nulls_distinct)
        )

    def _implies(self, old: _Index, new: _Index) -> bool:
        """Whether a unique index of the source proves that ``new`` will find no equal rows."""
        if not (old.unique and old.plain and new.plain) or old.exclusion or old.predicate:
            return False
        held = {self._held.get(name) for name in new.names if name is not None}
        if not old.names or not {*old.names} <= held:
            return False
        columns = [self._source.column(name or "") for name in old.names]
        never_null = all(one is not None and one.not_null for one in columns)
        return new.nulls_distinct or never_null or not old.nulls_distinct

    def _same_exclusion(self, new: _Index, there: list[_Index]) -> bool:
        kept = all(name is not None and self._held.get(name) == name for name in new.names)
        return kept and any(old.exclusion and old.definition == new.definition for old in there)

    def _rule(self, rule: Rule, table: int) -> None:
        """Add a rule of one member; of a partition only for the rows that go there."""
        try:
            inside = self._inside(table)
        except Unjudged as why:
            self.demands.not_looked_at.append(NotLookedAt(rule.kind, rule.name, str(why)))
            return
        if inside is not None:
            form = "CASE WHEN {} THEN {} END"
            broken = sql.SQL(form).format(inside, rule.broken)
            rule = Rule(rule.kind, rule.name, broken, None, rule.evaluated)
        self.demands.rules.append(rule)

    def _inside(self, table: int) -> sql.Composable | None:
        return None if table == self._table.relation.oid else self._bounds.inside(table)

    @property
    def _members(self) -> list[int]:
        return [member.oid for member in self._table.tree]


def _held(connection: Connection, source: Table, table: Table, mapping: Mapping) -> dict[str, str]:
    """New columns that hold an old column's values one for one, with that column's name."""
    found = {pair.target: pair.source for pair in mapping.key}
    for filled in mapping.filled:
        old = source.column(filled.origin or "")
        new = table.column(filled.name)
        if old is None or new is None or filled.name in found:
            continue
        reference = sql.Identifier(source.relation.name, old.name).as_string(connection)
        direct = filled.expression == reference or filled.expression.startswith(
            f"CAST({reference} AS "
        )
        places = ((source.relation.oid, old.number), (table.relation.oid, new.number))
        if direct and holds(connection, places[0], None, places[1]):
            found[filled.name] = old.name
    return found


def _read_indexes(connection: Connection, tables: list[int]) -> list[_Index]:
    with canonical(connection), connection.cursor(row_factory=class_row(_Index)) as cursor:
        return cursor.execute(_INDEXES, {"tables": tables}).fetchall()


_NOT_NULLS = """
SELECT a.attrelid::int8, a.attname FROM pg_attribute a
WHERE a.attrelid = ANY(%(tables)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
  AND (a.attrelid = %(root)s OR NOT EXISTS (
      SELECT FROM pg_attribute r WHERE r.attrelid = %(root)s AND r.attname = a.attname AND r.attnotnull))
ORDER BY array_position(%(tables)s::oid[], a.attrelid), a.attnum
"""

_CHECKS = """
SELECT k.conrelid::int8, k.conname, pg_get_expr(k.conbin, k.conrelid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY(k.conkey))
FROM pg_constraint k
WHERE k.conrelid = ANY(%(tables)s::oid[]) AND k.contype = 'c'
  AND (k.conrelid = %(root)s OR k.coninhcount = 0)
  AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true)
ORDER BY array_position(%(tables)s::oid[], k.conrelid), k.conname
"""

_INDEXES = """
SELECT i.indrelid::int8 AS table, x.relname AS name, i.indisunique AS unique,
       i.indisexclusion AS exclusion, NOT i.indnullsnotdistinct AS nulls_distinct,
       pg_get_expr(i.indpred, i.indrelid) AS predicate, p.parts, p.names, p.plain,
       coalesce((SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k
                 WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid AND k.contype <> 'f'),
                '') AS definition
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
CROSS JOIN LATERAL (
    SELECT array_agg(pg_get_indexdef(i.indexrelid, u.position::int, false) || CASE
               WHEN u.collation_oid = coalesce(a.attcollation, 0) OR u.collation_oid = 0 THEN ''
               ELSE ' COLLATE ' || (SELECT quote_ident(n.nspname) || '.' || quote_ident(o.collname)
                                    FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
                                    WHERE o.oid = u.collation_oid) END ORDER BY u.position),
           array_agg(a.attname::text ORDER BY u.position),
           bool_and(a.attname IS NOT NULL AND u.collation_oid = a.attcollation)
    FROM unnest(i.indkey::int2[], i.indcollation::oid[]) WITH ORDINALITY
         AS u (number, collation_oid, position)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.number AND u.number > 0
    WHERE u.position <= i.indnkeyatts) AS p (parts, names, plain)
WHERE i.indrelid = ANY(%(tables)s::oid[]) AND (i.indisvalid OR x.relkind = 'I')
  AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid
                  AND i.indrelid <> (%(tables)s::oid[])[1])
ORDER BY array_position(%(tables)s::oid[], i.indrelid), i.indisprimary DESC, x.relname
"""
