"""Outbound foreign keys: off the retired table, or it would stop deletes of its parents."""

from __future__ import annotations

import re
from dataclasses import dataclass

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Step

_OUTBOUND = """
SELECT k.conname, p.oid::int8, n.nspname, p.relname
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
WHERE k.conrelid = %s AND k.contype = 'f' AND k.conparentid = 0
ORDER BY k.conname
"""


@dataclass(frozen=True, slots=True)
class OutboundKey:
    """A foreign key of a table of ours, and the table it points to."""

    name: str
    parent: Relation


def outbound_keys(connection: Connection, table: Relation) -> list[OutboundKey]:
    """The foreign keys of ``table`` that it has by itself, not through its partition root."""
    rows = connection.execute(_OUTBOUND, [table.oid]).fetchall()
    return [OutboundKey(name, Relation(oid, schema, parent)) for name, oid, schema, parent in rows]


def drop_key_step(connection: Connection, table: Relation, key: OutboundKey) -> Step:
    """Drop ``key`` from ``table``, named by where it is then."""
    return Step.of(
        connection,
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            table.identifier, sql.Identifier(key.name)
        ),
        lock=f"ACCESS EXCLUSIVE on {table} and {key.parent}",
        why="a retired table must not stop deletes of its parents",
    )


_REFERENCES = re.compile(r' REFERENCES ((?:"(?:[^"]|"")*"|[^\s"(])+) ?\(')
_NAMED = """
SELECT c.oid::int8, n.nspname, c.relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""


def referenced_tables(connection: Connection, statement: str) -> list[Relation]:
    """The table that an ADD FOREIGN KEY, as PostgreSQL prints it, points to; none for others."""
    names = _REFERENCES.findall(statement)
    rows = [connection.execute(_NAMED, [name]).fetchone() for name in names]
    return [Relation(*row) for row in rows if row is not None]
