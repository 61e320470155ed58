"""A table with all its partitions, and which table of the shadow takes whose place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.mapping import Mapping
from restructure.shape.table import Table

_TREE = """
WITH RECURSIVE tree AS (
    SELECT %(oid)s::oid AS relid, 0 AS level
    UNION ALL
    SELECT i.inhrelid, t.level + 1 FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = relid)
SELECT c.oid::int8, n.nspname, c.relname, c.relkind = 'p'
FROM tree
JOIN pg_catalog.pg_class c ON c.oid = tree.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY tree.level, c.oid
"""
"""Not pg_partition_tree(), which would wait for a lock on every member."""


@dataclass(frozen=True, slots=True)
class Member:
    """A root, an inner partitioned table or a leaf."""

    relation: Relation
    partitioned: bool


def family(connection: Connection, root: Relation) -> tuple[Member, ...]:
    """Return the root and every partition below it, root first, by level and OID.

    ALTER TABLE … SET SCHEMA and OWNER TO do not reach partitions (PostgreSQL docs,
    sql-altertable), so whoever uses them must name each member.
    """
    rows = connection.execute(_TREE, {"oid": root.oid}).fetchall()
    return tuple(Member(Relation(oid, schema, name), kind) for oid, schema, name, kind in rows)


def counterpart(
    shadow: Relation, shadow_root: Relation, source: tuple[Member, ...]
) -> Relation | None:
    """The member of ``source`` whose place ``shadow`` takes: the root's, or the same name's."""
    if shadow.oid == shadow_root.oid:
        return source[0].relation
    return next((m.relation for m in source[1:] if m.relation.name == shadow.name), None)


def final_place(shadow: Relation, shadow_root: Relation, source: tuple[Member, ...]) -> Relation:
    """Where ``shadow`` stands after the swap: a new partition goes beside the root."""
    taken = counterpart(shadow, shadow_root, source) or source[0].relation
    return replace(shadow, schema=taken.schema)


def column_origins(source: Table, mapping: Mapping) -> dict[str, str]:
    """New column to the old one whose grants, comment, settings and sequence it inherits.

    The old column whose value it holds; else that of its own name, if no other holds it.
    """
    origins = {column.name: column.origin for column in mapping.filled if column.origin}
    origins |= {pair.target: pair.source for pair in mapping.key}
    held = set(origins.values())
    for column in source.columns:
        if column.name not in held:
            origins.setdefault(column.name, column.name)
    return origins


def column_heirs(source: Table, mapping: Mapping) -> dict[str, str]:
    """Old column to the new one that inherits from it: the one of its name before any other."""
    origins = column_origins(source, mapping)
    heirs = {old: new for new, old in reversed(origins.items())}
    return heirs | {old: old for new, old in origins.items() if new == old}
