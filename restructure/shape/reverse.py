"""The way back: what fills the old columns from a row of the new table, should one go back."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.errors import PlanError
from restructure.plan.load import LoadedPlan
from restructure.postgres.connect import Connection
from restructure.shape.casts import TEXT, VARCHAR, type_facts
from restructure.shape.expressions import ExpressionReader, Target
from restructure.shape.keys import can_be_hashed, equality
from restructure.shape.mapping import FilledColumn, KeyPair, Mapping, WayBack
from restructure.shape.table import Column, Table

_GENERATED_PUBLISHED = 180000


def derive_way_back(
    connection: Connection, source: Table, shadow: Table, loaded: LoadedPlan, mapping: Mapping
) -> WayBack:
    """Reverse the mapping as far as the plan's ``reverse`` and the types allow.

    An old column is filled by its expression under ``reverse``, else from the new column that
    holds its value, cast back where an assignment cast exists. One of which the new table has
    nothing at all keeps its values. Raises PlanError where an expression will not do, before
    anything is copied.
    """
    return _Derivation(connection, source, shadow, loaded, mapping).way_back()


@dataclass(slots=True)
class _Derivation:
    connection: Connection
    source: Table
    shadow: Table
    loaded: LoadedPlan
    mapping: Mapping

    def way_back(self) -> WayBack:
        filled: list[FilledColumn] = []
        lost: list[str] = []
        for column in self.source.columns:
            found = self._told(column) or self._held(column)
            if found is not None:
                filled.append(found)
            elif not column.generated and any(
                column.name in new.reads for new in self.mapping.filled
            ):
                lost.append(column.name)
        key: list[KeyPair] = []
        for pair in self.mapping.key:
            turned = self._key_pair(pair, filled)
            if isinstance(turned, str):
                return WayBack(None, turned)
            key.append(turned)
        unpublished = self._unpublished()
        if unpublished is not None:
            return WayBack(None, unpublished)
        return WayBack(
            Mapping(tuple(filled), tuple(key), None, ours=self.mapping.where), "", tuple(lost)
        )

    def _unpublished(self) -> str | None:
        """Why no publication of the new table could be made without clients' writes failing."""
        if self.connection.info.server_version >= _GENERATED_PUBLISHED:
            return None
        for key in self.shadow.key:
            column = self.shadow.column(key.name)
            if column is not None and column.generated:
                return (
                    f"{key.name} of the new table's replica identity is a generated column, which"
                    " PostgreSQL publishes from 18 on"
                )
        return None

    def _reader(self) -> ExpressionReader:
        return ExpressionReader(
            self.connection,
            self.loaded,
            self.shadow.relation,
            self.source.relation.name,
            self.shadow.relation.schema,
        )

    def _told(self, column: Column) -> FilledColumn | None:
        text = self.loaded.plan.reverse.get(column.name)
        if text is None:
            return None
        if column.generated:
            raise PlanError(
                f"reverse: {column.name!r} is a generated column, which PostgreSQL fills itself",
                place=self.loaded.place("reverse", column.name),
            )
        read = self._reader().fill(("reverse", column.name), text, self._target(column))
        held = next((c.name for c in self.shadow.columns if c.number == read.holds), None)
        reads = (c.name for c in self.shadow.columns if {c.number, 0} & read.reads)
        return FilledColumn(column.name, read.sql, column.type_sql, held, tuple(reads))

    def _held(self, column: Column) -> FilledColumn | None:
        """From the new column that holds its value, the one of its own name before any other."""
        if column.generated:
            return None
        holders = [new.name for new in self.mapping.filled if new.origin == column.name]
        for name in sorted(holders, key=lambda name: name != column.name):
            new = self.shadow.column(name)
            assert new is not None
            try:
                value = self._reader().assigned(
                    ("reverse", column.name), new, column, self._target(column)
                )
            except PlanError:
                continue
            return FilledColumn(column.name, value, column.type_sql, name, (name,))
        return None

    def _target(self, column: Column) -> Target:
        return Target(self.source.relation, column.name, column.type_oid, like=True)

    def _key_pair(self, pair: KeyPair, filled: list[FilledColumn]) -> KeyPair | str:
        """The same pair with the roles exchanged, or why there is none."""
        new, old = self.shadow.column(pair.target), self.source.column(pair.source)
        assert new is not None and old is not None
        if not any(c.name == old.name and c.origin == new.name for c in filled):
            return (
                f"the key column {old.name} ({old.type_sql}) is not made of {new.name}"
                f" ({new.type_sql}), which holds it, by a cast of PostgreSQL's own"
            )
        if new.name not in {column.name for column in self.shadow.key}:
            return (
                f"the new table's replica identity does not have {new.name}, by which the old"
                " rows would be found"
            )
        equals = _equality_across(self.connection, old.type_oid, new.type_oid)
        if equals is None:
            return f"no index on {old.name} ({old.type_sql}) finds a value of type {new.type_sql}"
        return KeyPair(
            new.name,
            old.name,
            new.type_sql,
            equality(self.connection, new.type_oid),
            equals,
            can_be_hashed(self.connection, new.type_oid),
        )


def _equality_across(connection: Connection, indexed: int, given: int) -> str | None:
    """The operator by which an index on the one type finds a value of the other as it is.

    A cast of the value to the narrower type would raise an error for each key that it cannot hold.
    """
    facts = [type_facts(connection, oid, -1, 0).oid for oid in (indexed, given)]
    one, other = (TEXT if oid == VARCHAR else oid for oid in facts)
    if one == other:
        return equality(connection, indexed)
    row = connection.execute(_ACROSS, {"indexed": one, "given": other}).fetchone()
    return None if row is None else str(row[0])


_ACROSS = """
SELECT pg_catalog.format('OPERATOR(%%I.%%s)', n.nspname, o.oprname)
FROM pg_catalog.pg_opclass c
JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
JOIN pg_catalog.pg_amop a ON a.amopfamily = c.opcfamily AND a.amopstrategy = 3
  AND a.amoplefttype = c.opcintype AND a.amoprighttype = %(given)s::oid
JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE c.opcdefault AND c.opcintype = %(indexed)s::oid
"""
