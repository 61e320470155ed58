"""Two tables of a verification whose columns are typed like keys: bounds of ranges, and suspects.

A suspect is a key whose rows differed when they were compared, which may be lag or damage. It is
held as the shadow holds it, in columns ``t1``…: what is only in the shadow may have no form of the
source's type. ``sure`` are those that are damage.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from restructure.model.names import STATE_SCHEMA, Names
from restructure.postgres.connect import Connection

_COMMA = sql.SQL(", ")


class Suspects:
    """The suspects of one job in one direction, whose key has ``width`` columns."""

    def __init__(self, names: Names, width: int) -> None:
        self.table = sql.Identifier(STATE_SCHEMA, names.suspects)
        self.bounds = sql.Identifier(STATE_SCHEMA, names.bounds)
        self.fields = [f"t{number}" for number in range(1, width + 1)]
        self.columns = [sql.Identifier(field) for field in self.fields]

    def create(
        self,
        connection: Connection,
        bounds: Sequence[sql.Composable],
        held: Sequence[sql.Composable],
    ) -> None:
        """Make both tables anew, in the caller's transaction.

        ``bounds`` and ``held`` are the types, with their collations, of the source's key and of the
        shadow's.
        """
        self.drop(connection)
        connection.execute(
            sql.SQL("CREATE TABLE {} (number integer PRIMARY KEY, {})").format(
                self.bounds,
                _COMMA.join(
                    sql.SQL("{} {}").format(sql.Identifier(f"k{number}"), typed)
                    for number, typed in enumerate(bounds, 1)
                ),
            )
        )
        connection.execute(
            sql.SQL("CREATE INDEX ON {} ({})").format(
                self.bounds,
                _COMMA.join(sql.Identifier(f"k{number}") for number in range(1, len(bounds) + 1)),
            )
        )
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, unit integer,"
                " sure boolean NOT NULL DEFAULT false, {})"
            ).format(
                self.table,
                _COMMA.join(
                    sql.SQL("{} {}").format(column, typed)
                    for column, typed in zip(self.columns, held, strict=True)
                ),
            )
        )

    def drop(self, connection: Connection) -> None:
        """Remove both."""
        connection.execute(sql.SQL("DROP TABLE IF EXISTS {}, {}").format(self.table, self.bounds))

    def there(self, connection: Connection) -> bool:
        """Whether both tables are here: a version before them may have left none."""
        row = connection.execute(
            "SELECT to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL",
            (self.table.as_string(connection), self.bounds.as_string(connection)),
        ).fetchone()
        return bool(row and row[0])

    def clear(self, connection: Connection) -> None:
        """Nobody is suspected any more."""
        connection.execute(sql.SQL("DELETE FROM {}").format(self.table))

    def forget_unsure(self, connection: Connection) -> None:
        """Left by a process that has ended: what they were of is compared again."""
        connection.execute(sql.SQL("DELETE FROM {} WHERE NOT sure").format(self.table))

    def forget_range(self, connection: Connection, unit: int) -> None:
        """The range that begins with ``unit`` is compared again."""
        connection.execute(sql.SQL("DELETE FROM {} WHERE unit = %s").format(self.table), (unit,))

    def count(self, connection: Connection, *, sure: bool) -> int:
        """How many there are."""
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM {} WHERE sure = %s").format(self.table), (sure,)
        ).fetchone()
        return int(row[0]) if row else 0

    def listed(self, connection: Connection, most: int) -> list[list[str | None]]:
        """The first of those that are sure, as texts: keys may be shown, values never."""
        rows = connection.execute(
            sql.SQL("SELECT {} FROM {} WHERE sure ORDER BY {} LIMIT %s").format(
                _COMMA.join(sql.SQL("{}::text").format(column) for column in self.columns),
                self.table,
                _COMMA.join(self.columns),
            ),
            (most,),
        ).fetchall()
        return [[_readable(text) for text in row] for row in rows]

    def condemn(
        self, connection: Connection, ids: Sequence[int], innocent: Sequence[sql.Composable]
    ) -> None:
        """Mark those of ``ids`` for which none of ``innocent`` (subqueries over alias ``s``) finds a row."""
        connection.execute(
            sql.SQL("UPDATE {} AS s SET sure = true WHERE s.id = ANY(%(ids)s){}").format(
                self.table,
                sql.Composed([sql.SQL(" AND NOT EXISTS ({})").format(query) for query in innocent]),
            ),
            {"ids": list(ids)},
        )

    def release(self, connection: Connection, ids: Sequence[int], innocent: sql.Composable) -> None:
        """Forget those of ``ids`` for which ``innocent`` finds a row."""
        connection.execute(
            sql.SQL("DELETE FROM {} AS s WHERE s.id = ANY(%(ids)s) AND EXISTS ({})").format(
                self.table, innocent
            ),
            {"ids": list(ids)},
        )

    def sure_ids(self, connection: Connection) -> list[int]:
        """Those that are damage and have a whole key."""
        rows = connection.execute(
            sql.SQL("SELECT id FROM {} WHERE sure AND {} ORDER BY id").format(
                self.table,
                sql.SQL(" AND ").join(
                    sql.SQL("{} IS NOT NULL").format(column) for column in self.columns
                ),
            )
        ).fetchall()
        return [row[0] for row in rows]

    def forget(self, connection: Connection, ids: Sequence[int]) -> None:
        """What differed is gone."""
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self.table), (list(ids),)
        )

    def acquit(self, connection: Connection) -> None:
        """All were repaired: they are to be judged once more. Those without a whole key have been deleted."""
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE sure AND ({})").format(
                self.table,
                sql.SQL(" OR ").join(
                    sql.SQL("{} IS NULL").format(column) for column in self.columns
                ),
            )
        )
        connection.execute(sql.SQL("UPDATE {} SET sure = false WHERE sure").format(self.table))

    def blamed_ranges(
        self, connection: Connection, job: int, names: Names
    ) -> list[tuple[int, int]]:
        """First and past unit of the ranges in which a key surely differs."""
        return connection.execute(
            sql.SQL(
                "SELECT v.first, v.past FROM restructure.verified AS v"
                " WHERE v.job = %s AND v.direction = %s"
                " AND EXISTS (SELECT FROM {} AS s WHERE s.sure AND s.unit = v.first) ORDER BY v.first"
            ).format(self.table),
            (job, names.direction),
        ).fetchall()

    def settle_ranges(self, connection: Connection, job: int, names: Names) -> None:
        """A range of which nobody is suspected any more was equal when it was read."""
        connection.execute(
            sql.SQL(
                "UPDATE restructure.verified AS v SET equal_at = read_at"
                " WHERE v.job = %s AND v.direction = %s AND equal_at IS DISTINCT FROM read_at"
                " AND NOT EXISTS (SELECT FROM {} AS s WHERE s.unit = v.first)"
            ).format(self.table),
            (job, names.direction),
        )


def _readable(text: str | bytes | None) -> str | None:
    """A database in SQL_ASCII has bytes and no characters."""
    return text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
