"""Tables and their keys, as far as a stream needs to know them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql


@dataclass(frozen=True, slots=True)
class Relation:
    """One table (or one leaf partition) by OID and by name."""

    oid: int
    schema: str
    name: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of the source's replica identity.

    ``type_sql`` is the type as PostgreSQL prints it, fully qualified, usable in DDL;
    ``collation_sql`` a qualified collation, or None where the type has none.
    """

    name: str
    type_oid: int
    type_sql: str
    collation_sql: str | None


@dataclass(frozen=True, slots=True)
class Watched:
    """What a stream is asked to follow: relations that share one key.

    For a partitioned source these are its leaves. ``full_identity`` is true under
    REPLICA IDENTITY FULL, where a column list would make clients' updates fail
    (PostgreSQL, check_and_fetch_column_list / RelationBuildPublicationDesc). ``identity`` is
    the replica identity where it has more columns than the key: they must be published too.
    """

    relations: tuple[Relation, ...]
    key: tuple[KeyColumn, ...]
    full_identity: bool = False
    identity: tuple[KeyColumn, ...] = ()

    @property
    def published(self) -> tuple[str, ...]:
        """The columns of the publication's list; empty where there must be none."""
        if self.full_identity:
            return ()
        return tuple(column.name for column in self.identity or self.key)
