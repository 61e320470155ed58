"""Dropping what stands in our schemas: piece by piece, and nothing that somebody else has built on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from psycopg import errors as pg
from psycopg import sql

from restructure.catalog.spool import Spool
from restructure.catalog.suspects import Suspects
from restructure.errors import NotNow, OperatorNeeded
from restructure.model.failpoint import failpoint
from restructure.model.names import Names
from restructure.ports import find_stream
from restructure.postgres.connect import Connection
from restructure.postgres.said import refusal

_LOCK_TIMEOUT = "5s"
_BIG = 1 << 30
"""Bytes of a table whose dropping is announced: unlinking its files takes a while."""


def remove_schema(
    connection: Connection, schema: str, announce: Callable[[str, int], None] = lambda *_: None
) -> None:
    """Drop the schema and all in it, each thing in a transaction of its own; safe to repeat.

    No lock is held for longer than one of them takes. ``announce`` is told name and bytes of a
    large table. Raises NotNow where something is in use, OperatorNeeded where something that is
    not ours depends on it, or PostgreSQL refuses for another reason.
    """
    left = connection.execute(_STANDING, [schema]).fetchall()
    while left:
        kept, whys = [], []
        for kind, name, size in left:
            if size > _BIG:
                announce(name, size)
            refused = _drop(connection, kind, name)
            if refused is None:
                failpoint("removal.dropped")
            else:
                kept.append((kind, name, size))  # perhaps for what comes later in the list
                whys.append(refused)
        if len(kept) == len(left):
            raise _stays(whys)
        left = kept
    last = _drop(connection, "SCHEMA", sql.Identifier(schema).as_string(connection))
    if last is not None:
        raise _stays([last])


def _stays(whys: list[str]) -> OperatorNeeded:
    return OperatorNeeded(
        f"not all could be dropped: {'; '.join(dict.fromkeys(whys))}",
        hint="Where something depends on it, drop that first, if nobody needs it. Then run the same "
        "command again.",
    )


def remove_stream(dsn: str, names: Names, options: Mapping[str, Any]) -> None:
    """Drop the stream of one direction, whole or half. ``options`` are the plan's."""
    with contextlib.closing(find_stream(options["kind"])(dsn, names, dict(options))) as stream:
        stream.drop()


def remove_tables(connection: Connection, names: Names) -> None:
    """Drop what the catalog keeps of one direction in tables of its own."""
    Spool(names, ()).drop(connection)
    Suspects(names, 0).drop(connection)


def _drop(connection: Connection, kind: str, name: str) -> str | None:
    """Drop one thing. Why PostgreSQL refuses, None where it is gone."""

    def drop() -> None:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
        connection.execute(sql.SQL("DROP {} IF EXISTS {}").format(sql.SQL(kind), sql.SQL(name)))

    try:
        return refusal(connection, drop)
    except pg.LockNotAvailable as error:
        raise NotNow(
            f"{kind.lower()} {name} is in use and could not be dropped",
            hint="Somebody reads it. Run the same command again later.",
        ) from error


# the newest first: what was made of something comes after it; partitions before their table
_STANDING = """
WITH here AS (SELECT pg_catalog.to_regnamespace(pg_catalog.quote_ident(%s)) AS oid),
standing (kind, identity, size, oid, classid) AS (
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                          WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
           pg_catalog.format('%%s.%%I', c.relnamespace::pg_catalog.regnamespace, c.relname),
           CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_table_size(c.oid) ELSE 0 END,
           c.oid, c.tableoid
    FROM here JOIN pg_catalog.pg_class c ON c.relnamespace = here.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'c')
    UNION ALL
    SELECT 'ROUTINE', (pg_catalog.pg_identify_object(p.tableoid, p.oid, 0)).identity, 0, p.oid,
           p.tableoid
    FROM here JOIN pg_catalog.pg_proc p ON p.pronamespace = here.oid
    UNION ALL
    SELECT 'STATISTICS', pg_catalog.format('%%s.%%I', s.stxnamespace::pg_catalog.regnamespace, s.stxname),
           0, s.oid, s.tableoid
    FROM here JOIN pg_catalog.pg_statistic_ext s ON s.stxnamespace = here.oid
)
SELECT kind, identity, size FROM standing s
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = s.classid AND d.objid = s.oid AND d.deptype IN ('a', 'i')
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    AND s.kind = 'SEQUENCE')
ORDER BY kind IN ('TABLE', 'SEQUENCE', 'TYPE'), oid DESC
"""
