"""The spool: dirty keys in the order they arrived, append-only, typed like the source's key.

Append-only because an upsert would lose the mark that arrives while an older one of the same
key is being applied; appliers delete exactly the rows they used, by id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from psycopg import sql

from restructure.model.change import Batch, Origin
from restructure.model.names import STATE_SCHEMA, Direction, Names
from restructure.model.relation import KeyColumn
from restructure.postgres.connect import Connection

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TRAILER = struct.pack(">h", -1)
_NULL = struct.pack(">i", -1)
_EXACT = 100_000


class Spool:
    """The spool table of one job. Key column ``i`` of the source is column ``k<i>`` here."""

    def __init__(self, names: Names, key: tuple[KeyColumn, ...]) -> None:
        self.key = key
        self.table = sql.Identifier(STATE_SCHEMA, names.spool)
        self.quarantine = sql.Identifier(STATE_SCHEMA, names.quarantine)
        self.kept = sql.Identifier(STATE_SCHEMA, names.kept)
        self.direction = names.direction
        self.fields = [f"k{number}" for number in range(1, len(key) + 1)]
        self.columns = [sql.Identifier(field) for field in self.fields]
        self._copy = sql.SQL(
            "COPY {} (xid, committed, truncated, {}) FROM STDIN (FORMAT BINARY)"
        ).format(self.table, sql.SQL(", ").join(self.columns))

    def create(self, connection: Connection, kept: Sequence[str] = ()) -> None:
        """Make spool and quarantine anew, in the caller's transaction.

        ``kept`` are the types of the columns that only the target has: their values wait in a
        third table while a row is made anew, and for as long as it is in quarantine.
        """
        self.drop(connection)
        bases: dict[int, str] = dict(
            connection.execute(_BASE_TYPES, ([key.type_oid for key in self.key],)).fetchall()
        )
        typed = [
            sql.SQL("{} {}{}").format(
                column,
                sql.SQL(bases.get(key.type_oid, key.type_sql)),
                sql.SQL(" COLLATE {}").format(sql.SQL(key.collation_sql))
                if key.collation_sql
                else sql.SQL(""),
            )
            for column, key in zip(self.columns, self.key, strict=True)
        ]
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, xid xid8 NOT NULL,"
                " committed timestamptz, truncated oid, {})"
                # a queue: vacuumed by its own traffic, whatever its size has been
                " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000)"
            ).format(self.table, sql.SQL(", ").join(typed))
        )
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} ({}, sqlstate text NOT NULL, reason text NOT NULL,"
                " at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY ({}))"
            ).format(self.quarantine, sql.SQL(", ").join(typed), sql.SQL(", ").join(self.columns))
        )
        if kept:
            values = [
                sql.SQL("{} {}").format(field, sql.SQL(type_sql))
                for field, type_sql in zip(kept_fields(len(kept)), kept, strict=True)
            ]
            connection.execute(
                sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
                    self.kept,
                    sql.SQL(", ").join([*typed, *values]),
                    sql.SQL(", ").join(self.columns),
                )
            )

    def exists(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (self.table.as_string(connection),)
        ).fetchone()
        return bool(row and row[0])

    def drop(self, connection: Connection) -> None:
        """Remove all of it."""
        connection.execute(
            sql.SQL("DROP TABLE IF EXISTS {}, {}, {}").format(
                self.table, self.quarantine, self.kept
            )
        )

    def void(self, connection: Connection, snapshot: str) -> None:
        """Forget keys that were dirtied by what ``snapshot``, that of the last swap, has seen.

        All of that was ours: clients have used the table only since that swap.
        """
        connection.execute(
            sql.SQL(
                "DELETE FROM {} WHERE pg_visible_in_snapshot(xid, %s::text::pg_snapshot)"
            ).format(self.table),
            (snapshot,),
        )

    def append(self, connection: Connection, batches: Iterable[Batch]) -> int:
        """Add the batches' keys and truncations in order; return how many rows that made.

        The key bytes are already COPY BINARY fields, so that a row costs one join of bytes and
        no value is ever decoded here.
        """
        rows = list(self._rows(batches))
        if rows:
            with connection.cursor() as cursor, cursor.copy(self._copy) as copy:
                copy.write(_HEADER)
                for start in range(0, len(rows), 4096):
                    copy.write(b"".join(rows[start : start + 4096]))
                copy.write(_TRAILER)
        return len(rows)

    def _rows(self, batches: Iterable[Batch]) -> Iterable[bytes]:
        fields = 3 + len(self.key)
        for batch in batches:
            for segment in batch.segments:
                for relation, origin in segment.truncations:
                    yield (
                        _origin(fields, origin)
                        + struct.pack(">iI", 4, relation)
                        + _NULL * len(self.key)
                    )
                last: Origin | None = None
                prefix = b""
                for key, origin in segment.keys.items():
                    if origin is not last:
                        prefix, last = _origin(fields, origin) + _NULL, origin
                    yield prefix + key

    def pending(self, connection: Connection) -> int:
        """Rows in the spool: exact up to a hundred thousand, a close guess from the ids above that.

        By the index: the heap is full of rows that were applied and not yet vacuumed.
        """
        return self.backlog(connection)[0]

    def backlog(self, connection: Connection) -> tuple[int, float]:
        """As :meth:`pending`, and the age in seconds of the oldest change that is known to be committed."""
        row = connection.execute(
            sql.SQL(
                "SELECT (SELECT count(*) FROM (SELECT FROM {0} ORDER BY id LIMIT {1}) AS first),"
                " (SELECT max(id) FROM {0}) - (SELECT min(id) FROM {0}) + 1,"
                " greatest(0, extract(epoch FROM clock_timestamp() - (SELECT min(committed) FROM"
                " (SELECT committed FROM {0} ORDER BY id LIMIT 1000) AS head)))::float8"
            ).format(self.table, sql.Literal(_EXACT))
        ).fetchone()
        assert row is not None
        count, spread, age = row
        return (spread if count == _EXACT else count), age or 0.0

    def quarantined(self, connection: Connection) -> int:
        """Keys whose rows the new shape refuses."""
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(self.quarantine)
        ).fetchone()
        return int(row[0]) if row else 0

    def refusals(self, connection: Connection) -> list[str]:
        """Why rows are in quarantine, the most frequent reasons first; three at most."""
        rows = connection.execute(
            sql.SQL(
                "SELECT reason FROM {} GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 3"
            ).format(self.quarantine)
        ).fetchall()
        return [str(row[0]) for row in rows]

    def forget_refused(self, connection: Connection) -> None:
        """Every row is gone, and so are those in quarantine."""
        connection.execute(sql.SQL("DELETE FROM {}").format(self.quarantine))

    def retry_quarantined(self, connection: Connection) -> int:
        """Mark every quarantined key dirty again, in one transaction of its own.

        The lock keeps the storer out: appliers rely on rows becoming visible in the order of their ids.
        """
        if not self.quarantined(connection):
            return 0
        columns = sql.SQL(", ").join(self.columns)
        with connection.transaction():
            connection.execute(
                sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(self.table)
            )
            cursor = connection.execute(
                sql.SQL(
                    "WITH freed AS (DELETE FROM {} RETURNING {})"
                    " INSERT INTO {} (xid, {}) SELECT pg_current_xact_id(), {} FROM freed"
                ).format(self.quarantine, columns, self.table, columns, columns)
            )
        return cursor.rowcount


def kept_fields(count: int) -> list[sql.Identifier]:
    """What the columns of the third table are called."""
    return [sql.Identifier(f"c{number}") for number in range(1, count + 1)]


# A domain may forbid NULL, which the row of a truncation holds as its key.
_BASE_TYPES = """
WITH RECURSIVE base AS (
    SELECT oid AS domain, typbasetype AS oid FROM pg_type WHERE oid = ANY(%s::oid[]) AND typtype = 'd'
    UNION ALL
    SELECT b.domain, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
SELECT b.domain::int8, format_type(t.oid, -1) FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype <> 'd'
"""


def _origin(fields: int, origin: Origin) -> bytes:
    if origin.committed is None:
        return struct.pack(">hiqi", fields, 8, origin.xid, -1)
    return struct.pack(">hiqiq", fields, 8, origin.xid, 8, origin.committed)


def store_position(connection: Connection, job: int, direction: Direction, position: str) -> None:
    """Note how far the stream is durable with us, in the transaction that made it so."""
    connection.execute(
        """INSERT INTO restructure.stream (job, direction, position) VALUES (%s, %s, %s)
           ON CONFLICT (job, direction) DO UPDATE SET position = EXCLUDED.position""",
        (job, direction, position),
    )


def stored_position(connection: Connection, job: int, direction: Direction) -> str | None:
    """The position of the last :func:`store_position`, None before the first."""
    row = connection.execute(
        "SELECT position FROM restructure.stream WHERE job = %s AND direction = %s",
        (job, direction),
    ).fetchone()
    return str(row[0]) if row else None
