"""What is known of the shadow's being equal to the transform of the source: as a whole, and by ranges of keys.

A *unit* is what lies between two neighbouring bounds of the key; a range is a run of units, compared
in one statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from restructure.errors import VerifyMismatch
from restructure.model.names import Names
from restructure.postgres.connect import Connection

TABLES = """
CREATE TABLE restructure.verification (
    job       bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    direction text NOT NULL,
    state     text NOT NULL,                    -- running, passed, failed or undecided
    mode      text NOT NULL,                    -- full or sample
    seed      bigint NOT NULL,                  -- of the bounds, and of what a sample takes
    units     integer NOT NULL,
    began_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at  timestamptz,
    passed_at timestamptz,                      -- the last time that one passed, this or an earlier one
    differing bigint NOT NULL DEFAULT 0,        -- keys
    at_least  boolean NOT NULL DEFAULT false,   -- there are more of them than were counted
    keys      jsonb NOT NULL DEFAULT '[]',      -- the first of them
    PRIMARY KEY (job, direction)
);

CREATE TABLE restructure.verified (
    job       bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    direction text NOT NULL,
    first     integer NOT NULL,                 -- unit
    past      integer NOT NULL,                 -- the unit that follows the last
    rows      bigint NOT NULL DEFAULT 0,
    checksum  numeric NOT NULL DEFAULT 0,       -- sum of the 64-bit hashes of the shadow's rows
    read_at   timestamptz,                      -- when it was compared last
    equal_at  timestamptz,                      -- when it was found equal last
    changed   boolean NOT NULL DEFAULT false,   -- a key in it was applied since its last comparison began
    PRIMARY KEY (job, direction, first)
);
"""

_COLUMNS = sql.SQL(
    "state, mode, seed, units, began_at, ended_at, passed_at, differing, at_least, keys"
)


@dataclass(frozen=True, slots=True)
class Verification:
    """The last or present verification of a job in one direction.

    ``differing`` counts the keys whose rows differ, ``at_least`` says that there are more;
    ``keys`` are the first of them, each the texts of its columns.
    """

    state: str
    mode: str
    seed: int
    units: int
    began_at: datetime
    ended_at: datetime | None
    passed_at: datetime | None
    differing: int
    at_least: bool
    keys: list[list[str | None]]

    @property
    def passed(self) -> bool:
        return self.state == "passed"


def mismatch(job: str, found: Verification) -> VerifyMismatch:
    """The error for a verification that has failed: it lists keys, and never values."""
    keys = ", ".join(
        f"({', '.join('NULL' if text is None else text for text in key)})" for key in found.keys
    )
    least = "at least " if found.at_least else ""
    more = f" and {found.differing - len(found.keys):,} more" * (found.differing > len(found.keys))
    error = VerifyMismatch(
        f"the rows of {least}{found.differing:,} key{'s' * (found.differing != 1)} are not what the"
        f" transform makes of the source: {keys}{more}",
        hint="Did somebody write to the new table? "
        f"restructure verify {job} --repair makes these rows anew.",
    )
    error.differing = found.differing
    error.keys = tuple(tuple(key) for key in found.keys)
    return error


@dataclass(frozen=True, slots=True)
class Stretch:
    """Units ``first`` up to, not including, ``past``."""

    first: int
    past: int

    @property
    def units(self) -> int:
        return self.past - self.first


def load(connection: Connection, job: int, names: Names) -> Verification | None:
    """The job's verification, None before the first."""
    with connection.cursor(row_factory=class_row(Verification)) as cursor:
        return cursor.execute(
            sql.SQL(
                "SELECT {} FROM restructure.verification WHERE job = %s AND direction = %s"
            ).format(_COLUMNS),
            (job, names.direction),
        ).fetchone()


def begin(
    connection: Connection, job: int, names: Names, *, mode: str, seed: int, units: int
) -> None:
    """Start anew, in the caller's transaction: nothing is known of any range any more."""
    _forget_ranges(connection, job, names)
    connection.execute(
        """INSERT INTO restructure.verification (job, direction, state, mode, seed, units)
           VALUES (%s, %s, 'running', %s, %s, %s)
           ON CONFLICT (job, direction) DO UPDATE SET state = 'running', mode = EXCLUDED.mode,
               seed = EXCLUDED.seed, units = EXCLUDED.units, began_at = clock_timestamp(),
               ended_at = NULL, differing = 0, at_least = false, keys = '[]'""",
        (job, names.direction, mode, seed, units),
    )


def end(
    connection: Connection,
    job: int,
    names: Names,
    *,
    differing: int,
    at_least: bool,
    keys: list[list[str | None]],
) -> None:
    """Note how it went: it has passed where nothing differs."""
    connection.execute(
        """UPDATE restructure.verification
           SET state = CASE WHEN %(differing)s = 0 THEN 'passed' ELSE 'failed' END,
               ended_at = clock_timestamp(),
               passed_at = CASE WHEN %(differing)s = 0 THEN clock_timestamp() ELSE passed_at END,
               differing = %(differing)s, at_least = %(at_least)s, keys = %(keys)s
           WHERE job = %(job)s AND direction = %(direction)s""",
        {
            "job": job,
            "direction": names.direction,
            "differing": differing,
            "at_least": at_least,
            "keys": Jsonb(keys),
        },
    )


def leave_undecided(connection: Connection, job: int, names: Names) -> None:
    """It came to its end without an answer: some keys never come to rest."""
    connection.execute(
        """UPDATE restructure.verification SET state = 'undecided', ended_at = clock_timestamp()
           WHERE job = %s AND direction = %s""",
        (job, names.direction),
    )


def forget(connection: Connection, job: int, names: Names) -> None:
    """Nothing is known any more, as before the first verification."""
    _forget_ranges(connection, job, names)
    connection.execute(
        "DELETE FROM restructure.verification WHERE job = %s AND direction = %s",
        (job, names.direction),
    )


def _forget_ranges(connection: Connection, job: int, names: Names) -> None:
    connection.execute(
        "DELETE FROM restructure.verified WHERE job = %s AND direction = %s", (job, names.direction)
    )


def start(connection: Connection, job: int, names: Names, stretch: Stretch) -> None:
    """Before a range is read: what is applied from now on counts as a change after it."""
    connection.execute(
        """INSERT INTO restructure.verified (job, direction, first, past) VALUES (%s, %s, %s, %s)
           ON CONFLICT (job, direction, first) DO UPDATE SET changed = false""",
        (job, names.direction, stretch.first, stretch.past),
    )


def compared(
    connection: Connection,
    job: int,
    names: Names,
    stretch: Stretch,
    *,
    rows: int,
    checksum: Any,
    at: datetime | None,
    equal: bool,
) -> None:
    """Note what the comparison of a range has found. ``at`` is None where it is to be read again."""
    connection.execute(
        """UPDATE restructure.verified SET rows = %s, checksum = %s, read_at = %s,
                  equal_at = CASE WHEN %s THEN %s ELSE equal_at END
           WHERE job = %s AND direction = %s AND first = %s""",
        (rows, checksum, at, equal, at, job, names.direction, stretch.first),
    )


def changed(connection: Connection, job: int, names: Names, *, older_than: float) -> list[Stretch]:
    """Ranges to compare again, the longest unseen first; not those seen in the last seconds."""
    rows = connection.execute(
        """SELECT first, past FROM restructure.verified
           WHERE job = %s AND direction = %s AND (changed OR equal_at IS DISTINCT FROM read_at)
             AND coalesce(read_at < clock_timestamp() - make_interval(secs => %s), true)
           ORDER BY read_at NULLS FIRST, first""",
        (job, names.direction, older_than),
    ).fetchall()
    return [Stretch(*row) for row in rows]


def missing(connection: Connection, job: int, names: Names, wanted: list[Stretch]) -> list[Stretch]:
    """What of ``wanted`` was not yet found equal, or not yet read, since the verification began.

    Ranges that were read and differ are among it: their keys may be lost with the process.
    """
    rows = connection.execute(
        """SELECT first, past FROM restructure.verified
           WHERE job = %s AND direction = %s AND read_at = equal_at ORDER BY first""",
        (job, names.direction),
    ).fetchall()
    gaps: list[Stretch] = []
    for stretch in wanted:
        reached = stretch.first
        for first, past in rows:
            if past <= stretch.first or first >= stretch.past:
                continue
            if first > reached:
                gaps.append(Stretch(reached, first))
            reached = max(reached, past)
        if reached < stretch.past:
            gaps.append(Stretch(reached, stretch.past))
    return gaps
