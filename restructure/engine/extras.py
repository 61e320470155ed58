"""Rows of the shadow that no row of the source made, where a comparison by the source's keys cannot see them.

Rows without a whole key, and all that is too much where the two sides cannot be read in one order of
keys. The latter is read by blocks of the shadow. A row that the applier moves meanwhile is one that it
has just made from a row of the source; what stays where it is, is looked at.
"""

from __future__ import annotations

from functools import partial

import psycopg
from psycopg import sql

from restructure.catalog.suspects import Suspects
from restructure.engine.control import Control
from restructure.engine.digest import COMMA, NEW, Digest
from restructure.engine.refusal import is_row_error
from restructure.engine.verifier import MOST_SUSPECTS
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.planner import force_index_lookups
from restructure.postgres.script import quoted

_BLOCKS = 512
_IN_BLOCKS = sql.SQL("{new}.ctid >= %(first)s::tid AND {new}.ctid < %(end)s::tid").format(
    new=sql.Identifier(NEW)
)


class Extras:
    """Suspects extra rows, a stretch of blocks at a time. ``session`` is its own."""

    def __init__(
        self, digest: Digest, suspects: Suspects, session: Connection, control: Control
    ) -> None:
        self._digest = digest
        self._suspects = suspects
        self._session = session
        self._control = control

    def find_keyless(self) -> None:
        """Note rows with a NULL in the key: they are damage for certain."""
        keyless = self._digest.keyless
        if keyless is None:
            return
        statement = self._note_sure(self._digest.target, keyless)
        self._control.long_statement(self._session, partial(self._run, statement))

    def find(self, leaf: Relation) -> None:
        """Look through one leaf of the shadow, by lookups in the source."""
        force_index_lookups(self._session)
        reached = 0
        while reached < (blocks := self._blocks(leaf)):
            self._control.checkpoint(throttle=True)
            end = min(reached + _BLOCKS, blocks)
            look = partial(self._look, leaf, reached, end)
            self._control.long_statement(self._session, look)
            reached = end

    def _blocks(self, leaf: Relation) -> int:
        """How many there are now: what was added since is looked at too."""
        row = self._session.execute(
            "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::bigint", (leaf.oid,)
        ).fetchone()
        return int(row[0]) if row and row[0] is not None else 0

    def _look(self, leaf: Relation, first: int, end: int) -> None:
        """Where a key has no form of the source's type, halve down to its row, which is extra."""
        words = {"first": f"({first},0)", "end": f"({end},0)"}
        try:
            self._run(self._suspect(leaf), **words)
            return
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
        if end - first > 1:
            middle = (first + end) // 2
            self._look(leaf, first, middle)
            self._look(leaf, middle, end)
            return
        rows = self._session.execute(
            sql.SQL("SELECT {new}.ctid::text FROM ONLY {leaf} AS {new} WHERE {blocks}").format(
                new=sql.Identifier(NEW), leaf=quoted(leaf.schema, leaf.name), blocks=_IN_BLOCKS
            ),
            words,
        )
        for (ctid,) in rows.fetchall():
            self._look_at_row(leaf, ctid)

    def _look_at_row(self, leaf: Relation, ctid: str) -> None:
        block, offset = ctid.strip("()").split(",")
        words = {"first": ctid, "end": f"({block},{int(offset) + 1})"}
        try:
            self._run(self._suspect(leaf), **words)
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            row = self._note_sure(quoted(leaf.schema, leaf.name), _IN_BLOCKS)
            self._run(row, **words)

    def _run(self, statement: sql.Composed, **words: str) -> None:
        self._session.execute(statement, {**words, "most": MOST_SUSPECTS})

    def _suspect(self, leaf: Relation) -> sql.Composed:
        """Suspect the rows in some blocks that no source row made.

        Fails where a key has no form of the source's type.
        """
        digest = self._digest
        return sql.SQL(
            "INSERT INTO {suspects} ({columns}) SELECT {held} FROM ONLY {leaf} AS {new}"
            " WHERE {blocks} AND NOT EXISTS"
            " (SELECT FROM {source} AS {alias} WHERE {found}{where}) LIMIT %(most)s"
        ).format(
            suspects=self._suspects.table,
            columns=COMMA.join(self._suspects.columns),
            held=COMMA.join(digest.loose_key),
            leaf=quoted(leaf.schema, leaf.name),
            new=sql.Identifier(NEW),
            blocks=_IN_BLOCKS,
            source=digest.source,
            alias=digest.alias,
            found=digest.made_by(digest.target_key),
            where=digest.where,
        )

    def _note_sure(self, table: sql.Composable, condition: sql.Composable) -> sql.Composed:
        return sql.SQL(
            "INSERT INTO {} (sure, {}) SELECT true, {} FROM {} AS {} WHERE {} LIMIT %(most)s"
        ).format(
            self._suspects.table,
            COMMA.join(self._suspects.columns),
            COMMA.join(self._digest.loose_key),
            table,
            sql.Identifier(NEW),
            condition,
        )
