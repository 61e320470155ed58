"""The copier: block ranges of the source become rows of the shadow, each in its own short transaction."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial

import psycopg

from restructure.catalog import chunks
from restructure.catalog.chunks import Extent, Range
from restructure.engine.control import Control
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.transform import Transform
from restructure.errors import SchemaDrift
from restructure.model.failpoint import failpoint
from restructure.model.progress import Progress
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection, connect

_LARGEST_CHUNK = 512
"""Blocks (4 MB at the usual 8 kB, no slower than larger ones): a chunk's transaction stays below
logical_decoding_work_mem (64 MB), past which every slot of the cluster would spill it to disk."""
_FIRST_CHUNK = 256
_SLOWED = 4.0
"""While slowed down, the copier rests this many times as long as it works."""


class SourceRewritten(SchemaDrift):
    """VACUUM FULL, CLUSTER or TRUNCATE moved the source's rows: copied ranges mean nothing now."""


class Copier:
    """Copies ranges with several workers; the catalog knows what is done."""

    def __init__(
        self,
        transform: Transform,
        leaves: Iterable[Relation],
        extents: Iterable[Extent],
        *,
        dsn: str,
        job: int,
        job_name: str,
        chunk_target: float,
        control: Control,
        progress: Progress,
    ) -> None:
        self._transform = transform
        self._leaves = {leaf.oid: leaf for leaf in leaves}
        self._filenodes = {extent.relation: extent.filenode for extent in extents}
        self._dsn = dsn
        self._job = job
        self._job_name = job_name
        self._target = chunk_target
        self._control = control
        self._progress = progress
        self._blocks = float(_FIRST_CHUNK)
        self._todo: deque[Range] = deque()
        self._lock = threading.Lock()

    def copy(self, ranges: Iterable[Range], workers: int) -> None:
        """Copy every range. Raises SourceRewritten when the source's file changed meanwhile."""
        self._todo = deque(ranges)
        self._control.crew.run_all([partial(self._work, number) for number in range(workers)])

    def _work(self, number: int) -> None:
        session: Connection | None = None
        try:
            while (chunk := self._take()) is not None:
                self._control.checkpoint(throttle=True)
                session = session or self._connect(number)
                began = time.monotonic()
                self._copy_chunk(session, chunk)
                spent = time.monotonic() - began
                self._adapt(chunk.blocks, spent)
                failpoint("copy.chunk")
                if self._control.slowed:
                    self._control.wait(_SLOWED * spent)
        except BaseException:
            with self._lock:
                self._todo.clear()  # what one worker cannot do stops the others too
            raise
        finally:
            if session is not None:
                session.close()

    def _connect(self, number: int) -> Connection:
        session = connect(self._dsn, job=self._job_name, role=f"copy {number + 1}")
        # a chunk lost in a crash is copied again, for its row in the catalog is lost with it
        session.execute("SET synchronous_commit = off")
        return session

    def _take(self) -> Range | None:
        with self._lock:
            if not self._todo:
                return None
            first = self._todo.popleft()
            size = max(1, int(self._blocks))
            if first.blocks <= size:
                return first
            self._todo.appendleft(Range(first.relation, first.first + size, first.end))
            return Range(first.relation, first.first, first.first + size)

    def _adapt(self, blocks: int, spent: float) -> None:
        """Aim at the target time, changing size by at most a factor of two at once."""
        ideal = blocks * self._target / max(spent, 0.001)
        with self._lock:
            self._blocks = min(max(ideal, self._blocks / 2, 1), self._blocks * 2, _LARGEST_CHUNK)

    def _copy_chunk(self, session: Connection, chunk: Range) -> None:
        copied = 0

        def attempt() -> None:
            nonlocal copied
            with session.transaction():
                copied = self._insert(session, chunk)
                self._check_file(session, chunk.relation)
                chunks.finish(session, self._job, chunk, copied)

        self._control.long_statement(session, attempt)
        with self._lock:
            self._progress.rows_copied += copied
            self._progress.blocks_copied += chunk.blocks

    def _insert(self, session: Connection, chunk: Range) -> int:
        """Insert a range; where the new shape refuses a row, halve down to it and quarantine it."""
        leaf = self._leaves[chunk.relation]
        bounds = {"first": f"({chunk.first},0)", "end": f"({chunk.end},0)"}
        try:
            with session.transaction():
                return session.execute(self._transform.copy_range(leaf), bounds).rowcount
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
        if chunk.blocks > 1:
            middle = (chunk.first + chunk.end) // 2
            return self._insert(session, Range(chunk.relation, chunk.first, middle)) + self._insert(
                session, Range(chunk.relation, middle, chunk.end)
            )
        return sum(
            self._insert_row(session, leaf, ctid)
            for (ctid,) in session.execute(self._transform.row_ids(leaf), bounds).fetchall()
        )

    def _insert_row(self, session: Connection, leaf: Relation, ctid: str) -> int:
        try:
            with session.transaction():
                return session.execute(self._transform.copy_row(leaf), {"ctid": ctid}).rowcount
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            session.execute(
                self._transform.quarantine_row(leaf),
                {"ctid": ctid, "sqlstate": error.sqlstate, "reason": reason(error)},
            )
            return 0

    def _check_file(self, session: Connection, relation: int) -> None:
        """Inside the chunk's transaction, whose lock on the source keeps rewrites out until it ends."""
        row = session.execute("SELECT pg_relation_filenode(%s)", (relation,)).fetchone()
        if row is None or row[0] != self._filenodes[relation]:
            raise SourceRewritten(f"{self._leaves[relation]} was rewritten during the copy")
