"""Every changed row must be identified in the stream by a unique key that is never null.

Each leaf has a replica identity of its own; the root's says nothing about it.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.model.relation import Relation
from restructure.shape.table import Table, read_relation

NAME = "replica_identity"

_INDEXES = """
SELECT x.relname, i.indisprimary, i.indimmediate, i.indisreplident,
       i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = i.indrelid
           AND a.attnum = ANY(i.indkey) AND NOT a.attnotnull) AS usable
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
WHERE i.indrelid = %(oid)s AND i.indisunique
ORDER BY i.indisprimary DESC, x.relname
"""


def find(context: CheckContext) -> Iterator[Finding]:
    source = context.table
    if source.relation_kind not in ("r", "p"):
        return
    if not source.key:
        yield from _why_no_key(context, source)
    if not source.partitioned:
        return
    for relation in source.leaves:
        leaf = read_relation(context.connection, relation.oid)
        if leaf.relation_kind != "r":
            continue
        if not leaf.key:
            yield from _why_no_key(context, leaf)
        elif source.key and _columns(leaf) != _columns(source):
            yield Finding(
                NAME,
                f"{relation} is identified by ({', '.join(_columns(leaf))}), "
                f"{source.relation} by ({', '.join(_columns(source))})",
                f"Give the partition the same identity: ALTER TABLE {relation} REPLICA IDENTITY "
                "DEFAULT, or USING INDEX with the matching index.",
            )


def _columns(table: Table) -> tuple[str, ...]:
    return tuple(column.name for column in table.key)


def _why_no_key(context: CheckContext, table: Table) -> Iterator[Finding]:
    name = table.relation
    indexes = context.rows(_INDEXES, oid=name.oid)
    primary = next((index for index in indexes if index[1]), None)
    if table.replica_identity == "n":
        yield Finding(NAME, f"{name} has REPLICA IDENTITY NOTHING", _use(name, indexes))
    elif table.replica_identity == "d" and primary and not primary[2]:
        yield Finding(
            NAME,
            f"the primary key {primary[0]} of {name} is deferrable, so it identifies no row",
            _use(name, [index for index in indexes if not index[1]]),
        )
    elif table.replica_identity == "i" and not any(index[3] for index in indexes):
        yield Finding(
            NAME,
            f"the index that was the replica identity of {name} is gone",
            _use(name, indexes),
        )
    else:
        yield Finding(NAME, f"{name} has no usable primary key", _use(name, indexes))


def _use(name: Relation, indexes: list[tuple[str, bool, bool, bool, bool]]) -> str:
    """Advice: the index that could serve, or what one would have to be like."""
    for index, primary, immediate, _, usable in indexes:
        if immediate and usable:
            how = "DEFAULT" if primary else f"USING INDEX {index}"
            return f"ALTER TABLE {name} REPLICA IDENTITY {how}."
    return (
        f"Give {name} a primary key, or a unique index over NOT NULL columns (not deferrable, not "
        f"partial, without expressions) and ALTER TABLE {name} REPLICA IDENTITY USING INDEX."
    )
