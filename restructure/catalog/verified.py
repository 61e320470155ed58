"""What was compared, range by range, for ``status`` and receipts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from restructure.catalog import verification
from restructure.model.names import STATE_SCHEMA, Names
from restructure.postgres.connect import Connection

_CHECKSUM_BITS = 64


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """A range of keys, for a receipt.

    ``low`` is the text of its first possible key, None for the lowest range; ``checksum`` the
    sum, modulo 2^64, of the hashes of the rows in it, in hexadecimal.
    """

    low: str | None
    rows: int
    checksum: str
    equal_at: datetime | None


@dataclass(frozen=True, slots=True)
class KnownEqual:
    """Since when rows may differ: every row was equal at ``at`` or has not been touched since it was.

    None where some row was never compared. ``changed`` of ``ranges`` hold rows that were written
    since they were compared.
    """

    at: datetime | None
    ranges: int
    changed: int


def rows(connection: Connection, job: int, names: Names) -> int:
    """Rows of the shadow in all ranges that were compared."""
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0)::bigint FROM restructure.verified WHERE job = %s AND direction = %s",
        (job, names.direction),
    ).fetchone()
    return int(row[0]) if row else 0


def known_equal(connection: Connection, job: int, names: Names) -> KnownEqual | None:
    """What ``status`` says; None where nothing was ever compared."""
    row = connection.execute(
        """SELECT count(*), count(*) FILTER (WHERE changed), bool_and(equal_at IS NOT NULL),
                  min(equal_at) FILTER (WHERE changed OR equal_at IS DISTINCT FROM read_at), max(equal_at)
           FROM restructure.verified WHERE job = %s AND direction = %s""",
        (job, names.direction),
    ).fetchone()
    if row is None or not row[0]:
        return None
    count, touched, whole, oldest, newest = row
    return KnownEqual((oldest or newest) if whole else None, count, touched)


def ranges(connection: Connection, job: int, names: Names, most: int = 1000) -> list[VerifiedRange]:
    """Every range that was compared, in the order of keys; neighbours joined where they are too many."""
    try:
        with connection.transaction():
            rows = connection.execute(
                sql.SQL(
                    "SELECT (SELECT string_agg(value, ', ' ORDER BY key)"
                    " FROM jsonb_each_text(to_jsonb(b) - 'number')), v.rows,"
                    " v.checksum, v.equal_at FROM restructure.verified v"
                    " LEFT JOIN {} AS b ON b.number = v.first"
                    " WHERE v.job = %s AND v.direction = %s AND v.read_at IS NOT NULL ORDER BY v.first"
                ).format(sql.Identifier(STATE_SCHEMA, names.bounds)),
                (job, names.direction),
            ).fetchall()
    except psycopg.errors.UndefinedTable:
        return []
    step = -(-len(rows) // most) if rows else 1
    return [_joined(rows[at : at + step]) for at in range(0, len(rows), step)]


def _joined(rows: list[Any]) -> VerifiedRange:
    total = sum(int(row[2]) for row in rows) % (1 << _CHECKSUM_BITS)
    times = [row[3] for row in rows]
    return VerifiedRange(
        rows[0][0],
        sum(row[1] for row in rows),
        f"{total:0{_CHECKSUM_BITS // 4}x}",
        None if None in times else min(times),
    )


def receipt(connection: Connection, job: int, names: Names) -> dict[str, Any] | None:
    """What a receipt says, as plain JSON values; None where nothing was compared.

    ``equal_since``: every row was equal then, or has not been written since it was.
    """
    found = verification.load(connection, job, names)
    known = known_equal(connection, job, names)
    if found is None or known is None:
        return None
    return {
        "state": found.state,
        "mode": found.mode,
        "passed_at": _iso(found.passed_at),
        "equal_since": _iso(known.at),
        "ranges": [
            {
                "low": each.low,
                "rows": each.rows,
                "checksum": each.checksum,
                "equal_at": _iso(each.equal_at),
            }
            for each in ranges(connection, job, names)
        ],
    }


def standing(connection: Connection, job: int, names: Names) -> dict[str, Any] | None:
    """What ``status`` says of the last comparison, and of what was written since; as plain JSON values."""
    found = verification.load(connection, job, names)
    if found is None:
        return None
    known = known_equal(connection, job, names)
    return {
        "state": found.state,
        "mode": found.mode,
        "seed": found.seed,
        "began_at": _iso(found.began_at),
        "ended_at": _iso(found.ended_at),
        "passed_at": _iso(found.passed_at),
        "differing": found.differing,
        "at_least": found.at_least,
        "keys": found.keys,
        "equal_at": _iso(known.at) if known else None,
        "ranges": known.ranges if known else 0,
        "changed_ranges": known.changed if known else 0,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
