"""Comments on a table, its columns, constraints, indexes and sequences."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script, Step

_TABLE = """
SELECT 'TABLE', '', d.description FROM pg_catalog.pg_description d
WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = %(table)s AND d.objsubid = 0
UNION ALL
SELECT 'COLUMN', a.attname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = %(table)s AND d.objsubid > 0
UNION ALL
SELECT 'CONSTRAINT', c.conname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_constraint c ON c.oid = d.objoid
WHERE d.classoid = 'pg_catalog.pg_constraint'::regclass AND c.conrelid = %(table)s
UNION ALL
SELECT 'INDEX', i.relname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_index x ON x.indexrelid = d.objoid
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND x.indrelid = %(table)s
"""

_PRESENT = """
SELECT 'TABLE', '', ''
UNION ALL
SELECT 'COLUMN', attname, '' FROM pg_catalog.pg_attribute
WHERE attrelid = %(table)s AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'CONSTRAINT', conname, '' FROM pg_catalog.pg_constraint WHERE conrelid = %(table)s
UNION ALL
SELECT 'INDEX', relname, '' FROM pg_catalog.pg_index
JOIN pg_catalog.pg_class ON oid = indexrelid WHERE indrelid = %(table)s
"""

_SEQUENCE = "SELECT pg_catalog.obj_description(%s, 'pg_class')"

_ON: dict[str, LiteralString] = {
    "TABLE": "TABLE {table}",
    "COLUMN": "COLUMN {table}.{name}",
    "CONSTRAINT": "CONSTRAINT {name} ON {table}",
    "INDEX": "INDEX {schema}.{name}",
    "SEQUENCE": "SEQUENCE {schema}.{name}",
}

_WHY = "same comment as before"

Comment = tuple[str, str, str]
"""What kind of object, its name within the table, and the text."""


def carry_comments(
    script: Script, source: Relation, target: Relation, columns: dict[str, str], *, keep: bool
) -> None:
    """Carry every comment whose object exists on ``target``.

    ``columns`` maps old column to new. ``keep``: what ``target`` says already stays; else the
    comments are made equal to the source's. Foreign keys come only in the swap: see
    :func:`foreign_key_comments`.
    """
    have = {row[:2]: row[2] for row in _read(script.connection, _TABLE, target)}
    present = {row[:2] for row in _read(script.connection, _PRESENT, target)}
    wanted: dict[tuple[str, str], str | None] = {} if keep else dict.fromkeys(have)
    for kind, old_name, text in _read(script.connection, _TABLE, source):
        name = columns.get(old_name, "") if kind == "COLUMN" else old_name
        wanted[kind, name] = text
    for thing, wish in wanted.items():
        if thing in present and wish != have.get(thing) and not (keep and thing in have):
            script.run(_comment(*thing, wish, target), lock="none", why=_WHY)


def carry_sequence_comment(
    script: Script, source: Relation, target: Relation, *, keep: bool
) -> None:
    """Carry the comment of a sequence that another takes over from; ``keep`` as for a table."""
    (old,) = script.connection.execute(_SEQUENCE, [source.oid]).fetchone() or (None,)
    (new,) = script.connection.execute(_SEQUENCE, [target.oid]).fetchone() or (None,)
    if old != new and not (keep and new):
        comment = _comment("SEQUENCE", target.name, old, target)
        script.run(comment, lock="none", why=_WHY)


def foreign_key_comments(
    connection: Connection, source: Relation, final: Relation, made: set[str]
) -> list[Step]:
    """Comments on the constraints called ``made``, which the swap itself makes on ``final``."""
    return [
        Step.of(
            connection,
            _comment(kind, name, text, final),
            lock="none",
            why=_WHY,
        )
        for kind, name, text in _read(connection, _TABLE, source)
        if kind == "CONSTRAINT" and name in made
    ]


def _read(connection: Connection, query: LiteralString, table: Relation) -> list[Comment]:
    return connection.execute(query, {"table": table.oid}).fetchall()


def _comment(kind: str, name: str, text: str | None, table: Relation) -> sql.Composed:
    place = sql.SQL(_ON[kind]).format(
        table=table.identifier, schema=sql.Identifier(table.schema), name=sql.Identifier(name)
    )
    return sql.SQL("COMMENT ON {} IS {}").format(place, sql.Literal(text))
