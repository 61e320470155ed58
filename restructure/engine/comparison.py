"""The statement that compares a range of keys on both sides, and the one that chooses the ranges' bounds."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from restructure.engine.digest import AND, COMMA, NEW, Digest
from restructure.postgres.script import raw

_NOTHING = sql.SQL("")


class Comparison:
    """Composes them for one job."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._facts = digest.facts
        self._suspects = digest.suspects
        self._numbers = range(1, len(digest.keys) + 1)
        self._old = [sql.Identifier("o", f"o{number}") for number in self._numbers]
        self._new = [sql.Identifier("n", f"t{number}") for number in self._numbers]

    @property
    def ordered(self) -> bool:
        """Whether both sides can be read in one order of keys."""
        return self._facts.ordered

    @property
    def any_refused(self) -> sql.Composed:
        """A query: is a key in quarantine?"""
        return self._digest.any_refused

    def compare_range(self, *, low: bool, high: bool, refused: bool) -> sql.Composed:
        """Compare the keys from bound ``first`` to before bound ``past``; suspect those that differ.

        One statement, and so one snapshot of both sides. Returns when it began, the shadow's rows, the
        sum of their hashes, and how many keys differ. Up to ``most`` of these are noted; none where
        there are more of them and not ``all``. ``low`` and ``high``: whether there is such a bound.
        ``refused``: there are keys in quarantine.
        """
        differs = sql.SQL("o.h IS DISTINCT FROM n.h")
        if not self._facts.unique:
            differs = sql.SQL("(o.h IS DISTINCT FROM n.h OR n.copies > 1)")
        sides = self._merged if self._facts.ordered else self._looked_up
        return sql.SQL(
            "WITH seen AS MATERIALIZED (SELECT count(n.h) AS rows, coalesce(sum(n.h), 0) AS checksum,"
            " count(*) FILTER (WHERE {differs}) AS wrong,"
            " (array_agg(ROW({keys})) FILTER (WHERE {differs})) AS keys FROM {sides}),"
            " noted AS (INSERT INTO {suspects} (unit, {columns}) SELECT DISTINCT %(first)s::int, k.* FROM seen"
            " CROSS JOIN LATERAL unnest(seen.keys[1:%(most)s]) AS k ({typed})"
            " WHERE %(all)s OR seen.wrong <= %(most)s)"
            " SELECT statement_timestamp(), rows, checksum, wrong FROM seen"
        ).format(
            differs=differs,
            keys=COMMA.join(self._either_key()),
            sides=sides(low=low, high=high, refused=refused),
            suspects=self._suspects.table,
            columns=COMMA.join(self._suspects.columns),
            typed=COMMA.join(
                sql.SQL("{} {}").format(column, raw(key.target_base))
                for column, key in zip(self._suspects.columns, self._facts.key, strict=True)
            ),
        )

    def sample_bounds(self) -> sql.Composed:
        """Make bounds of the keys on ``percent`` of the pages: one of each page, every ``step``th of these."""
        names = [sql.Identifier(f"k{number}") for number in self._numbers][: self._facts.ranged]
        return sql.SQL(
            "INSERT INTO {bounds} (number, {names})"
            " SELECT row_number() OVER (ORDER BY {names}), {names} FROM"
            " (SELECT DISTINCT ON ({names}) {names} FROM"
            " (SELECT {names}, row_number() OVER (ORDER BY {names}) AS place FROM"
            " (SELECT DISTINCT ON ({alias}.tableoid, ({alias}.ctid::text::point)[0]) {keys}"
            " FROM {source} AS {alias} TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (%(seed)s)) AS page)"
            " AS ranked WHERE place %% %(step)s = 0) AS chosen"
        ).format(
            bounds=self._suspects.bounds,
            names=COMMA.join(names),
            alias=self._digest.alias,
            keys=COMMA.join(
                sql.SQL("{} AS {}").format(column, name)
                for column, name in zip(self._digest.source_key, names, strict=False)
            ),
            source=self._digest.source,
        )

    def _merged(self, *, low: bool, high: bool, refused: bool) -> sql.Composed:
        """Both sides by the same bounds, merged by key."""
        digest = self._digest
        copies = sql.SQL(", count(*) OVER (PARTITION BY {}) AS copies")
        return sql.SQL(
            "({source}) AS o FULL JOIN (SELECT {keys}{copies}, {hash} AS h FROM {target} AS {new}"
            " WHERE {between}) AS n ON {same}"
        ).format(
            source=self._source_rows(digest.source_key, low=low, high=high, refused=refused),
            keys=_numbered("t", digest.target_key),
            copies=_NOTHING if self._facts.unique else copies.format(COMMA.join(digest.target_key)),
            hash=digest.of_target(),
            target=digest.target,
            new=sql.Identifier(NEW),
            between=self._between(digest.target_key, low=low, high=high),
            same=digest.same_source(self._old, self._new),
        )

    def _looked_up(self, *, low: bool, high: bool, refused: bool) -> sql.Composed:
        """Rows of the source by bounds, and for each the shadow's by its key."""
        digest = self._digest
        cast = digest.as_target(digest.source_key)
        return sql.SQL(
            "({source}) AS o LEFT JOIN LATERAL (SELECT {keys}{copies}, {hash} AS h FROM {target} AS {new}"
            " WHERE {same}) AS n ON true"
        ).format(
            source=self._source_rows(cast, low=low, high=high, refused=refused),
            keys=_numbered("t", digest.target_key),
            copies=_NOTHING if self._facts.unique else sql.SQL(", count(*) OVER () AS copies"),
            hash=digest.of_target(),
            target=digest.target,
            new=sql.Identifier(NEW),
            same=digest.same_target(digest.target_key, self._old),
        )

    def _source_rows(
        self, key: Sequence[sql.Composable], *, low: bool, high: bool, refused: bool
    ) -> sql.Composed:
        digest = self._digest
        return sql.SQL("SELECT {}, {} AS h FROM {} AS {} WHERE {}{}").format(
            _numbered("o", key),
            digest.of_source(refused=refused),
            digest.source,
            digest.alias,
            self._between(digest.source_key, low=low, high=high),
            digest.where,
        )

    def _between(self, key: list[sql.SQL], *, low: bool, high: bool) -> sql.Composed:
        """Each column of a bound is read by itself: only so are they constants to an index."""
        row = COMMA.join(key[: self._facts.ranged])

        def bound(which: str) -> sql.Composed:
            return COMMA.join(
                sql.SQL("(SELECT {} FROM {} WHERE number = {})").format(
                    sql.Identifier(f"k{number}"), self._suspects.bounds, sql.Placeholder(which)
                )
                for number in self._numbers[: self._facts.ranged]
            )

        conditions: list[sql.Composable] = [sql.SQL("true")]
        if low:
            conditions.append(sql.SQL("({}) >= ({})").format(row, bound("first")))
        if high:
            conditions.append(sql.SQL("({}) < ({})").format(row, bound("past")))
        return AND.join(conditions)

    def _either_key(self) -> list[sql.Composed]:
        """The key of a row that may be on one side only, as the shadow holds it."""
        return [
            sql.SQL("CAST(coalesce({}, {}) AS {})").format(new, old, raw(key.target_base))
            for new, old, (key, _) in zip(
                self._new, self._digest.as_target(self._old), self._digest.keys, strict=True
            )
        ]


def _numbered(letter: str, key: Sequence[sql.Composable]) -> sql.Composed:
    return COMMA.join(
        sql.SQL("{} AS {}").format(column, sql.Identifier(f"{letter}{number}"))
        for number, column in enumerate(key, 1)
    )
