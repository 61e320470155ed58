"""A table as the catalogs describe it."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.model.relation import KeyColumn, Relation


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Empty strings and None mean "no"."""

    number: int  # attnum
    name: str
    type_oid: int
    type_sql: str  # format_type with typmod, schema-qualified
    not_null: bool
    generated: str  # '' | 's' stored | 'v' virtual
    identity: str  # '' | 'a' always | 'd' by default
    default_sql: str | None  # also the generation expression
    collation_sql: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table, or a partitioned one with its leaves.

    ``relation_kind`` is pg_class.relkind ('r' or 'p'), ``persistence`` relpersistence,
    ``replica_identity`` relreplident. ``leaves`` of a plain table is the table itself.
    ``key`` are the columns of the effective replica identity in index order; empty
    where there is no usable one. ``key_index`` is that index's name.
    """

    relation: Relation
    relation_kind: str
    persistence: str
    access_method: str
    replica_identity: str
    columns: tuple[Column, ...]
    key: tuple[KeyColumn, ...]
    key_index: str
    leaves: tuple[Relation, ...]

    @property
    def partitioned(self) -> bool:
        return self.relation_kind == "p"

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)
