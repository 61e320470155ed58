"""Repair: keys that differ are read anew from the source, as if they had just been written."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from restructure.catalog.suspects import Suspects
from restructure.engine.digest import COMMA, NEW, Digest
from restructure.engine.refusal import is_row_error
from restructure.postgres.connect import Connection

_STEP = 1_000


def repair(session: Connection, digest: Digest, suspects: Suspects) -> int:
    """Mark every key that surely differs as dirty; return how many. To be applied, then judged again.

    What the source cannot have, for its key has no form of the source's type, is deleted at once.
    Only the thread that applies may call it; ``session`` finds rows by index.
    """
    if digest.keyless is not None:
        session.execute(
            sql.SQL("DELETE FROM {} AS {} WHERE {}").format(
                digest.target, sql.Identifier(NEW), digest.keyless
            ),
            {},
        )
    ids = suspects.sure_ids(session)
    for at in range(0, len(ids), _STEP):
        _mark(session, digest, suspects, ids[at : at + _STEP])
    suspects.acquit(session)
    return len(ids)


def _mark(session: Connection, digest: Digest, suspects: Suspects, ids: Sequence[int]) -> None:
    try:
        with session.transaction():
            # as in Spool.retry_quarantined: rows must become visible in the order of their ids
            session.execute(
                sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(digest.spool.table)
            )
            session.execute(_clear(digest, suspects), {"ids": list(ids)})
            session.execute(_spool(digest, suspects), {"ids": list(ids)})
    except psycopg.Error as error:
        if not is_row_error(error):
            raise
        if len(ids) > 1:
            middle = len(ids) // 2
            _mark(session, digest, suspects, ids[:middle])
            _mark(session, digest, suspects, ids[middle:])
            return
        with session.transaction():
            session.execute(_delete(digest, suspects), {"ids": list(ids)})
            suspects.forget(session, ids)


def _spool(digest: Digest, suspects: Suspects) -> sql.Composed:
    """Fails where a key has no form of the source's type."""
    return sql.SQL(
        "INSERT INTO {} (xid, {}) SELECT pg_current_xact_id(), {} FROM {} AS s WHERE s.id = ANY(%(ids)s)"
    ).format(
        digest.spool.table,
        COMMA.join(digest.spool.columns),
        COMMA.join(digest.as_source(digest.suspected("s"))),
        suspects.table,
    )


def _clear(digest: Digest, suspects: Suspects) -> sql.Composed:
    """Remove what no merge by the source's key would: copies of a row, and rows that no key leads to."""
    suspected = digest.suspected("s")
    return sql.SQL(
        "DELETE FROM {target} AS {new} USING {suspects} AS s WHERE s.id = ANY(%(ids)s) AND {same}"
        " AND ((SELECT count(*) FROM {target} AS {new} WHERE {same}) > 1 OR NOT EXISTS"
        " (SELECT FROM {source} AS {alias} WHERE {found}{where}))"
    ).format(
        target=digest.target,
        new=sql.Identifier(NEW),
        suspects=suspects.table,
        same=digest.same_target(digest.target_key, suspected),
        source=digest.source,
        alias=digest.alias,
        found=digest.made_by(suspected),
        where=digest.where,
    )


def _delete(digest: Digest, suspects: Suspects) -> sql.Composed:
    return sql.SQL("DELETE FROM {} AS {} USING {} AS s WHERE s.id = ANY(%(ids)s) AND {}").format(
        digest.target,
        sql.Identifier(NEW),
        suspects.table,
        digest.same_target(digest.target_key, digest.suspected("s")),
    )
