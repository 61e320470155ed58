"""The SQL of the transform: one place composes what copy, catch-up and cutover run."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from restructure.catalog.spool import Spool
from restructure.engine.kept import Kept, same_spooled
from restructure.model.relation import Relation
from restructure.postgres.script import quoted, raw
from restructure.postgres.settled import gate
from restructure.shape.mapping import KeyPair, Mapping
from restructure.shape.table import Column

_COMMA = sql.SQL(", ")
_AND = sql.SQL(" AND ")
_IN_RANGE = sql.SQL("{0}.ctid >= %(first)s::tid AND {0}.ctid < %(end)s::tid")
_AT_CTID = sql.SQL("{0}.ctid = %(ctid)s::tid")
_NEW = "restructure_new"
_OLD = "restructure_old"

SETTLED = gate(sql.Identifier("xid"))
"""True where the statement's own snapshot can see the transaction that dirtied the key.

A commit is decoded as soon as its record is flushed, which is before it is visible (PostgreSQL,
xact.c, RecordTransactionCommit; longest while a synchronous standby is awaited): a re-read before that
would find the old row. An aborted transaction counts as visible, and costs a needless re-read.
"""


def _named(relation: Relation) -> sql.SQL:
    return quoted(relation.schema, relation.name)


class Transform:
    """Statements that bring rows of ``source`` into ``target``.

    Rows are always read from the source by SQL, with the expressions of the mapping; only
    keys come from the spool. ``kept`` are columns that only the target has, and whose values a
    row keeps however often it is made anew.
    """

    def __init__(
        self,
        source: Relation,
        target: Relation,
        mapping: Mapping,
        spool: Spool,
        kept: Sequence[Column] = (),
    ) -> None:
        self.source = source
        self.target = target
        self.mapping = mapping
        self.spool = spool
        self._kept = Kept(kept, spool, target, self._pairs())
        self._alias = quoted(source.name)
        self._source = _named(source)
        self._target = _named(target)
        self._columns = _COMMA.join(quoted(column.name) for column in mapping.filled)
        self._expressions = _COMMA.join(
            sql.SQL("({})").format(raw(column.expression)) for column in mapping.filled
        )
        self._keys = _COMMA.join(spool.columns)
        self._numbers = range(1, len(mapping.filled) + 1)
        self._hashed = [
            column for column, pair in zip(spool.columns, self._pairs(), strict=True) if pair.hashed
        ]
        self._where = (
            sql.SQL(" AND ({})").format(raw(mapping.where)) if mapping.where else sql.SQL("")
        )

    def copy_range(self, leaf: Relation) -> sql.Composed:
        """Copy the blocks from ``first`` (included) to ``end`` (not) of one leaf."""
        return self._copied(leaf, _IN_RANGE)

    def copy_row(self, leaf: Relation) -> sql.Composed:
        """As :meth:`copy_range`, for the one row at ``ctid``."""
        return self._copied(leaf, _AT_CTID)

    def row_ids(self, leaf: Relation) -> sql.Composed:
        """The ctid of each row in the blocks ``first`` to ``end``."""
        return sql.SQL("SELECT {}.ctid::text {}").format(
            self._alias, self._rows_of(leaf, _IN_RANGE)
        )

    def quarantine_row(self, leaf: Relation) -> sql.Composed:
        """Note the key of the row at ``ctid`` as refused."""
        return sql.SQL(
            "INSERT INTO {quarantine} ({keys}, sqlstate, reason)"
            " SELECT {source_keys}, %(sqlstate)s, %(reason)s {rows} ON CONFLICT DO NOTHING"
        ).format(
            quarantine=self.spool.quarantine,
            keys=self._keys,
            source_keys=self._source_keys(),
            rows=self._rows_of(leaf, _AT_CTID),
        )

    def free_batch(self) -> sql.Composed:
        """Take the keys of :meth:`insert_batch` out of the quarantine."""
        return self._freeing(self._batch())

    def delete_spooled(self) -> sql.Composed:
        """Remove from the target every key in the spool: copied twice, stale or since deleted."""
        return self._delete_joined(self._all_spooled())

    def insert_spooled(self) -> sql.Composed:
        """Read from the source every key in the spool, after :meth:`delete_spooled`."""
        return self._insert_joined(self._all_spooled())

    def delete_batch(self) -> sql.Composed:
        """Remove the keys of the session's temporary table ``restructure_batch``."""
        return self._delete_joined(
            sql.SQL("SELECT {} FROM pg_temp.restructure_batch").format(self._keys)
        )

    def insert_batch(self) -> sql.Composed:
        """Read the keys of ``restructure_batch`` numbered from ``first`` to before ``end``."""
        return self._insert_joined(self._batch())

    @property
    def divisible(self) -> bool:
        """Whether :meth:`merge` can tell keys apart by hash, for appliers over disjoint keys."""
        return bool(self._hashed)

    def merge(self, *, divided: bool, freeing: bool = False) -> sql.Composed:
        """Apply the settled keys with ``low`` < id <= ``high`` and remove them from the spool.

        One statement, so one snapshot: the gate, the removal and the re-read agree. With
        ``divided``, only keys whose hash falls to ``part`` of ``parts``, by the types' own
        hash functions, so that equal keys of different form (1.0 and 1.00) fall together.
        ``freeing``: what was in quarantine is so no more.
        """
        mine = (
            sql.SQL(
                " AND (hash_record_extended(ROW({}), 0) & 2147483647) %% %(parts)s = %(part)s"
            ).format(_COMMA.join(self._hashed))
            if divided
            else sql.SQL("")
        )
        values = [sql.Identifier(_OLD, f"f{number}") for number in self._numbers]
        return sql.SQL(
            "WITH taken AS (DELETE FROM {spool} WHERE id > %(low)s AND id <= %(high)s AND truncated IS NULL"
            " AND {settled}{mine} RETURNING {keys}),"
            " dirty AS MATERIALIZED (SELECT DISTINCT {keys} FROM taken ORDER BY {keys}){freed}{given}"
            " MERGE INTO {target} AS {new} USING (SELECT {dirty_keys}, o.*{given_columns} FROM dirty AS d"
            " LEFT JOIN {rows} AS o ON {found}{given_join}) AS {old} ON {same}"
            " WHEN MATCHED AND {old}.present IS NULL THEN DELETE"
            " WHEN MATCHED THEN UPDATE SET {assignments}"
            " WHEN NOT MATCHED AND {old}.present THEN"
            " INSERT ({columns}) OVERRIDING SYSTEM VALUE VALUES ({values})"
        ).format(
            spool=self.spool.table,
            settled=SETTLED,
            mine=mine,
            keys=self._keys,
            target=self._target,
            new=sql.Identifier(_NEW),
            old=sql.Identifier(_OLD),
            dirty_keys=_COMMA.join(sql.Identifier("d", field) for field in self.spool.fields),
            rows=self._rows(),
            found=self._found(),
            freed=self._freed() if freeing else sql.SQL(""),
            given=self._kept.taken(sql.SQL("TABLE dirty"), first=False),
            given_columns=self._kept.columns,
            given_join=self._kept.join,
            same=self._same_key(_OLD),
            assignments=_COMMA.join(
                sql.SQL("{} = {}").format(quoted(column.name), value)
                for column, value in zip(self.mapping.filled, values, strict=True)
            ),
            columns=self._columns + self._kept.names,
            values=_COMMA.join(values) + self._kept.values(_OLD),
        )

    def empty_target(self) -> sql.Composed:
        """What a TRUNCATE of the source does to the target."""
        if self.mapping.ours is None:
            return sql.SQL("TRUNCATE {}").format(self._target)
        return sql.SQL("DELETE FROM {} AS {} WHERE ({})").format(
            self._target, quoted(self.target.name), raw(self.mapping.ours)
        )

    def delete_absent(self) -> sql.Composed:
        """Remove rows whose key the source no longer has: what a truncated leaf held."""
        return sql.SQL(
            "DELETE FROM {target} AS {new} WHERE NOT EXISTS (SELECT FROM {source} AS {alias} WHERE {same}{where})"
        ).format(
            target=self._target,
            new=sql.Identifier(_NEW),
            source=self._source,
            alias=self._alias,
            same=_AND.join(
                sql.SQL("{} {} CAST({} AS {})").format(
                    quoted(_NEW, pair.target),
                    raw(pair.target_equals),
                    quoted(self.source.name, pair.source),
                    raw(pair.target_type),
                )
                for pair in self.mapping.key
            ),
            where=self._where,
        )

    def _copied(self, leaf: Relation, condition: sql.SQL) -> sql.Composed:
        return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} {}").format(
            self._target, self._columns, self._expressions, self._rows_of(leaf, condition)
        )

    def _rows_of(self, leaf: Relation, condition: sql.SQL) -> sql.Composed:
        return sql.SQL("FROM ONLY {leaf} AS {alias} WHERE {condition}{where}").format(
            leaf=_named(leaf),
            alias=self._alias,
            condition=condition.format(self._alias),
            where=self._where,
        )

    def _batch(self) -> sql.Composed:
        return sql.SQL(
            "SELECT {} FROM pg_temp.restructure_batch WHERE number >= %(first)s AND number < %(end)s"
        ).format(self._keys)

    def _delete_joined(self, dirty: sql.Composable) -> sql.Composed:
        delete = sql.SQL("DELETE FROM {target} AS {new} USING ({dirty}) AS d WHERE {same}").format(
            target=self._target,
            new=sql.Identifier(_NEW),
            dirty=dirty,
            same=self._same_key("d"),
        )
        return self._kept.saving(delete, _NEW)

    def _insert_joined(self, dirty: sql.Composable) -> sql.Composed:
        return sql.SQL(
            "{given}INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE"
            " SELECT {values} FROM (SELECT d.*, o.*{given_columns} FROM ({dirty}) AS d JOIN {rows} AS o"
            " ON {found}{given_join}) AS {old}"
        ).format(
            given=self._kept.taken(dirty, first=True),
            target=self._target,
            columns=self._columns + self._kept.names,
            values=_COMMA.join(sql.Identifier(_OLD, f"f{number}") for number in self._numbers)
            + self._kept.values(_OLD),
            given_columns=self._kept.columns,
            dirty=dirty,
            rows=self._rows(),
            found=self._found(),
            given_join=self._kept.join,
            old=sql.Identifier(_OLD),
        )

    def _freed(self) -> sql.Composed:
        """What is merged without an error is in quarantine no more."""
        return sql.SQL(", freed AS ({})").format(self._freeing(sql.SQL("TABLE dirty")))

    def _freeing(self, dirty: sql.Composable) -> sql.Composed:
        return sql.SQL("DELETE FROM {} AS q USING ({}) AS d WHERE {}").format(
            self.spool.quarantine, dirty, same_spooled(self.spool, self._pairs(), "q", "d")
        )

    def _rows(self) -> sql.Composed:
        """The source's transformed rows: keys as o1…, filled columns as f1…, ``present`` true.

        A subquery of its own, so that an expression of the plan sees the columns of the old
        row and no name of ours.
        """
        return sql.SQL(
            "(SELECT {keys}, true AS present, {read} FROM {source} AS {alias} WHERE true{where})"
        ).format(
            keys=_COMMA.join(
                sql.SQL("{} AS {}").format(
                    quoted(self.source.name, key.name), sql.Identifier(f"o{number}")
                )
                for number, key in enumerate(self.spool.key, 1)
            ),
            read=_COMMA.join(
                sql.SQL("({}) AS {}").format(raw(column.expression), sql.Identifier(f"f{number}"))
                for number, column in zip(self._numbers, self.mapping.filled, strict=True)
            ),
            source=self._source,
            alias=self._alias,
            where=self._where,
        )

    def _all_spooled(self) -> sql.Composed:
        return sql.SQL("SELECT DISTINCT {} FROM {} WHERE truncated IS NULL").format(
            self._keys, self.spool.table
        )

    def _found(self) -> sql.Composed:
        return _AND.join(
            sql.SQL("{} {} {}").format(
                sql.Identifier("o", f"o{number}"),
                raw(pair.source_equals),
                sql.Identifier("d", field),
            )
            for number, (field, pair) in enumerate(
                zip(self.spool.fields, self._pairs(), strict=True), 1
            )
        )

    def _same_key(self, keys: str) -> sql.Composed:
        return _AND.join(
            sql.SQL("{} {} CAST({} AS {})").format(
                quoted(_NEW, pair.target),
                raw(pair.target_equals),
                sql.Identifier(keys, field),
                raw(pair.target_type),
            )
            for pair, field in zip(self._pairs(), self.spool.fields, strict=True)
        )

    def _pairs(self) -> list[KeyPair]:
        """The mapping's key pairs in the order of the spool's columns."""
        pairs = {pair.source: pair for pair in self.mapping.key}
        return [pairs[key.name] for key in self.spool.key]

    def _source_keys(self) -> sql.Composed:
        return _COMMA.join(quoted(self.source.name, key.name) for key in self.spool.key)
