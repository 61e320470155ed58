"""Rows as hashes of their bytes, and keys as either table holds them: the parts of a comparison's SQL.

A row's hash is of the binary form of its values in the shadow's own column types. Display text would
hide what differs (-0 and 0, intervals of 30 days and of a month, a text that is cut), equality would too
(1.0 and 1.00, 'A' and 'a'), and some types have neither.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from psycopg import sql

from restructure.catalog.spool import Spool
from restructure.catalog.suspects import Suspects
from restructure.model.relation import Relation
from restructure.postgres.script import quoted, raw
from restructure.shape.comparable import Comparable, HeldKey
from restructure.shape.mapping import FilledColumn, KeyPair, Mapping

COMMA = sql.SQL(", ")
AND = sql.SQL(" AND ")
NEW = "restructure_new"
_REFUSED = "restructure_refused"


class Digest:
    """Composes what is said of single rows of ``source`` and ``target``.

    Rows of the target go by the alias restructure_new, those of the source by its own name, for the
    sake of the plan's expressions. ``compared`` are the columns of the target that are looked at, all
    that the mapping fills where it is None; the key's are always among them.
    """

    def __init__(
        self,
        source: Relation,
        target: Relation,
        mapping: Mapping,
        spool: Spool,
        suspects: Suspects,
        facts: Comparable,
        compared: Collection[str] | None = None,
    ) -> None:
        held = {pair.target for pair in mapping.key}
        pairs = {pair.source: pair for pair in mapping.key}
        self.facts = facts
        self.spool = spool
        self.suspects = suspects
        self.alias = quoted(source.name)
        self.source = quoted(source.schema, source.name)
        self.target = quoted(target.schema, target.name)
        self.where = (
            sql.SQL(" AND ({})").format(raw(mapping.where)) if mapping.where else sql.SQL("")
        )
        self.keys: list[tuple[HeldKey, KeyPair]] = [(key, pairs[key.source]) for key in facts.key]
        self._name = source.name
        self._columns = [
            column
            for column in mapping.filled
            if compared is None or column.name in compared or column.name in held
        ]

    def of_source(self, *, refused: bool) -> sql.Composed:
        """The hash of a row of the source as it should be in the shadow.

        ``refused``: there are keys in quarantine. Their rows may be ones that the transform fails
        on, so that they get NULL and no look.
        """
        made = self._hash(self._made(column) for column in self._columns)
        if not refused:
            return made
        return sql.SQL("CASE WHEN NOT EXISTS (SELECT FROM {} AS {} WHERE {}) THEN {} END").format(
            self.spool.quarantine,
            sql.Identifier(_REFUSED),
            AND.join(
                sql.SQL("{} {} {}").format(
                    sql.Identifier(_REFUSED, field), raw(pair.source_equals), column
                )
                for field, column, (_, pair) in zip(
                    self.spool.fields, self.source_key, self.keys, strict=True
                )
            ),
            made,
        )

    def of_target(self) -> sql.Composed:
        """The hash of a row of the shadow."""
        return self._hash(
            self._formed(column.name, quoted(NEW, column.name)) for column in self._columns
        )

    @property
    def source_key(self) -> list[sql.SQL]:
        return [quoted(self._name, key.source) for key, _ in self.keys]

    @property
    def target_key(self) -> list[sql.SQL]:
        return [quoted(NEW, key.target) for key, _ in self.keys]

    @property
    def loose_key(self) -> list[sql.Composed]:
        """The shadow's key free of domains, which may forbid what damage holds."""
        return [
            sql.SQL("CAST({} AS {})").format(column, raw(key.target_base))
            for column, (key, _) in zip(self.target_key, self.keys, strict=True)
        ]

    @property
    def keyless(self) -> sql.Composed | None:
        """Whether a row of the shadow has a NULL in its key, which no source row has; None if none can."""
        nullable = [quoted(NEW, key.target) for key, _ in self.keys if key.nullable]
        if not nullable:
            return None
        return sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(column) for column in nullable)

    def as_target(self, values: Iterable[sql.Composable]) -> list[sql.Composed]:
        """Key values of the source's types as the shadow holds them."""
        return [
            _collated(
                sql.SQL("CAST({} AS {})").format(value, raw(pair.target_type)), key.target_collation
            )
            for value, (key, pair) in zip(values, self.keys, strict=True)
        ]

    def as_source(self, values: Iterable[sql.Composable]) -> list[sql.Composed]:
        """Key values as the shadow holds them in the source's types; fails where they have no such form."""
        return [
            _collated(
                sql.SQL("CAST({} AS {})").format(value, raw(key.source_base)), key.source_collation
            )
            for value, (key, _) in zip(values, self.keys, strict=True)
        ]

    def same_source(
        self, one: Iterable[sql.Composable], other: Iterable[sql.Composable]
    ) -> sql.Composed:
        """Whether two keys of the source's types are the same one."""
        return _same(one, (pair.source_equals for _, pair in self.keys), other)

    def same_target(
        self, one: Iterable[sql.Composable], other: Iterable[sql.Composable]
    ) -> sql.Composed:
        """Whether two keys of the shadow's types are the same one."""
        return _same(one, (pair.target_equals for _, pair in self.keys), other)

    def made_by(self, held: Sequence[sql.Composable]) -> sql.Composed:
        """Whether a row of the source makes the key that is ``held`` as the shadow holds it; by an index."""
        if (
            self.facts.ordered
        ):  # compared as they are: what is in the shadow alone may have no other form
            return self.same_source(self.source_key, held)
        # '007' is 7 as a number, and no row with the number 7 makes '007'
        return AND.join(
            [
                self.same_source(self.source_key, self.as_source(held)),
                self.same_target(self.as_target(self.source_key), held),
            ]
        )

    def suspected(self, alias: str) -> list[sql.Identifier]:
        """The key of a suspect."""
        return [sql.Identifier(alias, field) for field in self.suspects.fields]

    @property
    def any_refused(self) -> sql.Composed:
        """A query: is a key in quarantine?"""
        return sql.SQL("SELECT EXISTS (SELECT FROM {})").format(self.spool.quarantine)

    def spooled_as_target(self, alias: str) -> list[sql.Composed]:
        """The key of a row of the spool or the quarantine, as the shadow holds it."""
        return self.as_target(sql.Identifier(alias, field) for field in self.spool.fields)

    def _made(self, column: FilledColumn) -> sql.Composed:
        """The value that the column would be given, rounded and padded as its type does."""
        value = sql.SQL("({})").format(raw(column.expression))
        if column.type_sql:
            value = sql.SQL("CAST({} AS {})").format(value, raw(column.type_sql))
        return self._formed(column.name, value)

    def _formed(self, name: str, value: sql.Composable) -> sql.Composed:
        form = "({})::text" if name in self.facts.as_text else "{}"
        return sql.SQL(form).format(value)

    def _hash(self, values: Iterable[sql.Composed]) -> sql.Composed:
        """64 bits over all bytes of the row at once: sums of hashes of single columns would not notice
        values that changed places."""
        sent = sql.SQL("record_send(ROW({}))").format(COMMA.join(values))
        if self.facts.direct:
            return sql.SQL("hashbyteaextended({}, 0)").format(sent)
        return sql.SQL("hash_record_extended(ROW({}), 0)").format(sent)


def _same(
    one: Iterable[sql.Composable], equals: Iterable[str], other: Iterable[sql.Composable]
) -> sql.Composed:
    return AND.join(
        sql.SQL("{} {} {}").format(left, raw(operator), right)
        for left, operator, right in zip(one, equals, other, strict=True)
    )


def _collated(value: sql.Composed, collation: str | None) -> sql.Composed:
    """Two columns of different collations are compared by neither, unless one is named."""
    if collation is None:
        return value
    return sql.SQL("{} COLLATE {}").format(value, raw(collation))
