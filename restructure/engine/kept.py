"""Columns that only the target has: a row keeps their values however often it is made anew.

An update leaves them alone. A row that is deleted to be inserted again, at once or when it comes
out of quarantine, has its values put aside in a table of ours meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from restructure.catalog.spool import Spool, kept_fields
from restructure.model.relation import Relation
from restructure.postgres.script import quoted, raw
from restructure.shape.mapping import KeyPair
from restructure.shape.table import Column

_COMMA = sql.SQL(", ")
_NOTHING = sql.Composed([])
_WAS_THERE = "was_there"


def same_spooled(spool: Spool, pairs: Sequence[KeyPair], one: str, other: str) -> sql.Composed:
    """Whether two relations that hold keys as the spool does hold the same one."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} {} {}").format(
            sql.Identifier(one, field), raw(pair.source_equals), sql.Identifier(other, field)
        )
        for field, pair in zip(spool.fields, pairs, strict=True)
    )


class Kept:
    """The parts of a statement that take care of ``columns``; all of them empty where there are none."""

    def __init__(
        self,
        columns: Sequence[Column],
        spool: Spool,
        target: Relation,
        pairs: Sequence[KeyPair],
    ) -> None:
        self._columns = columns
        self._spool = spool
        self._target = target
        self._pairs = pairs
        self._fields = kept_fields(len(columns))

    @property
    def any(self) -> bool:
        return bool(self._columns)

    def saving(self, delete: sql.Composed, target: str) -> sql.Composed:
        """``delete``, of keys ``d`` from the target under the alias ``target``, which puts the values aside."""
        if not self.any:
            return delete
        return sql.SQL(
            "WITH gone AS ({} RETURNING {}, {}) INSERT INTO {} ({}) SELECT * FROM gone"
            " ON CONFLICT DO NOTHING"
        ).format(
            delete,
            _COMMA.join(sql.Identifier("d", field) for field in self._spool.fields),
            _COMMA.join(quoted(target, column.name) for column in self._columns),
            self._spool.kept,
            _COMMA.join([*self._spool.columns, *self._fields]),
        )

    def taken(self, dirty: sql.Composable, *, first: bool) -> sql.Composed:
        """The common table expression ``given``: values of keys about which is decided now."""
        if not self.any:
            return _NOTHING
        given = sql.SQL("given AS (DELETE FROM {} AS k USING ({}) AS d WHERE {} RETURNING k.*)")
        same = same_spooled(self._spool, self._pairs, "k", "d")
        return sql.SQL("WITH {} " if first else ", {}").format(
            given.format(self._spool.kept, dirty, same)
        )

    @property
    def join(self) -> sql.Composed:
        """Joins ``given`` to the keys ``d``."""
        if not self.any:
            return _NOTHING
        same = same_spooled(self._spool, self._pairs, "g", "d")
        return sql.SQL(" LEFT JOIN given AS g ON {}").format(same)

    @property
    def columns(self) -> sql.Composed:
        """What is selected from that join."""
        if not self.any:
            return _NOTHING
        there = sql.SQL(", {} IS NOT NULL AS {}").format(
            sql.Identifier("g", self._spool.fields[0]), sql.Identifier(_WAS_THERE)
        )
        return there + sql.Composed([sql.SQL(", g.{}").format(field) for field in self._fields])

    @property
    def names(self) -> sql.Composed:
        """The columns of the target, to follow those that are filled."""
        return sql.Composed(
            [sql.SQL(", {}").format(quoted(column.name)) for column in self._columns]
        )

    def values(self, alias: str) -> sql.Composed:
        """For each the value that the row had, or for a new row the column's default."""
        return sql.Composed(
            [
                sql.SQL(", CASE WHEN {} THEN {}.{} ELSE {} END").format(
                    sql.Identifier(alias, _WAS_THERE),
                    sql.Identifier(alias),
                    field,
                    self._default(column),
                )
                for column, field in zip(self._columns, self._fields, strict=True)
            ]
        )

    def _default(self, column: Column) -> sql.Composable:
        if column.identity:
            return sql.SQL("pg_catalog.nextval(pg_catalog.pg_get_serial_sequence({}, {}))").format(
                *(
                    raw(sql.Literal(text).as_string(None))
                    for text in (self._target.identifier.as_string(None), column.name)
                )
            )
        return raw(f"({column.default_sql})") if column.default_sql else sql.SQL("NULL")
