"""Storage options and per-column settings: filled in where the shadow has its default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, LiteralString

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script

_OPTIONS = """
SELECT c.reloptions, t.reloptions
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
WHERE c.oid = %s
"""

_COLUMNS = """
SELECT a.attname, a.atttypid, a.attstorage, t.typstorage, a.attcompression,
       coalesce(a.attstattarget, -1), coalesce(a.attoptions, '{}')
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_INDEX_TARGETS = """
SELECT i.relname, a.attnum, a.attstattarget
FROM pg_catalog.pg_index x
JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid AND a.attstattarget >= 0
JOIN pg_catalog.pg_index y ON y.indrelid = %s
JOIN pg_catalog.pg_class j ON j.oid = y.indexrelid AND j.relname = i.relname
JOIN pg_catalog.pg_attribute b ON b.attrelid = j.oid AND b.attnum = a.attnum
WHERE x.indrelid = %s AND coalesce(b.attstattarget, -1) < 0
"""

_STORAGE: dict[str, LiteralString] = {
    "p": "PLAIN",
    "e": "EXTERNAL",
    "x": "EXTENDED",
    "m": "MAIN",
}
_COMPRESSION: dict[str, LiteralString] = {"p": "pglz", "l": "lz4"}


def carry_options(script: Script, source: Relation, target: Relation) -> None:
    """Carry fillfactor, autovacuum and toast.* settings that ``target`` does not set itself."""
    missing = {
        name: value
        for name, value in _options(script.connection, source).items()
        if name not in _options(script.connection, target)
    }
    if missing:
        script.run(
            sql.SQL("ALTER TABLE {} SET ({})").format(target.identifier, _assignments(missing)),
            lock=f"SHARE UPDATE EXCLUSIVE on {target}",
            why="same storage options as the source",
        )


def carry_column_settings(
    script: Script, source: Relation, target: Relation, columns: dict[str, str]
) -> None:
    """Carry storage, compression, statistics target and options of each column."""
    have = {row[0]: row[1:] for row in script.connection.execute(_COLUMNS, [target.oid])}
    clauses: list[sql.Composable] = []
    for old, *wanted in script.connection.execute(_COLUMNS, [source.oid]).fetchall():
        new = columns.get(old)
        if new is not None and new in have:
            prefix = sql.SQL("ALTER COLUMN {} SET ").format(sql.Identifier(new))
            clauses += [prefix + clause for clause in _column_clauses(wanted, have[new])]
    if clauses:
        script.run(
            sql.SQL("ALTER TABLE ONLY {} {}").format(
                target.identifier, sql.SQL(", ").join(clauses)
            ),
            lock=f"ACCESS EXCLUSIVE on {target}",
            why="same column settings as the source",
        )


def carry_index_targets(script: Script, source: Relation, target: Relation) -> None:
    """Carry the statistics targets of index expressions, where the index has kept its name."""
    rows = script.connection.execute(_INDEX_TARGETS, [target.oid, source.oid]).fetchall()
    for index, number, goal in rows:
        script.run(
            sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(
                sql.Identifier(target.schema, index), sql.Literal(number), sql.Literal(goal)
            ),
            lock=f"SHARE UPDATE EXCLUSIVE on {target.schema}.{index}",
            why="same statistics target as the source",
        )


def _column_clauses(wanted: list[Any], have: tuple[Any, ...]) -> Iterable[sql.Composable]:
    type_oid, storage, _, compression, goal, options = wanted
    have_type, have_storage, have_default, have_compression, have_goal, have_options = have
    if type_oid == have_type and storage != have_storage == have_default:
        yield sql.SQL("STORAGE ") + sql.SQL(_STORAGE[storage])
    if compression and not have_compression and have_default != "p":
        yield sql.SQL("COMPRESSION ") + sql.SQL(_COMPRESSION[compression])
    if goal >= 0 > have_goal:
        yield sql.SQL("STATISTICS ") + sql.Literal(goal)
    known = _split(have_options)
    missing = {name: value for name, value in _split(options).items() if name not in known}
    if missing:
        yield sql.SQL("({})").format(_assignments(missing))


def _options(connection: Connection, relation: Relation) -> dict[str, str]:
    row = connection.execute(_OPTIONS, [relation.oid]).fetchone()
    own, toast = row or (None, None)
    options = _split(own)
    return options | {f"toast.{name}": value for name, value in _split(toast).items()}


def _split(options: Iterable[str] | None) -> dict[str, str]:
    return dict(option.split("=", 1) for option in options or ())


def _assignments(options: dict[str, str]) -> sql.Composed:
    """``name = 'value'`` pairs; a name like toast.autovacuum_enabled is two identifiers."""
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(*name.split(".")), sql.Literal(value))
        for name, value in options.items()
    )
