"""How far the copy has come: extents to copy, and the block ranges already done."""

from __future__ import annotations

from dataclasses import dataclass

from restructure.postgres.connect import Connection


@dataclass(frozen=True, slots=True)
class Extent:
    """One leaf of the source as it was when the copy began. Sizes in blocks."""

    relation: int
    filenode: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks ``first`` up to, not including, ``end`` of one leaf."""

    relation: int
    first: int
    end: int

    @property
    def blocks(self) -> int:
        return self.end - self.first


def begin(connection: Connection, job: int, relations: list[int]) -> None:
    """Forget an earlier copy and note each leaf's file node and size, in the caller's transaction.

    The size is read here, after the barrier, because a row committed before the slot's start may stand in a block
    that an earlier reading would have missed.
    """
    connection.execute("DELETE FROM restructure.chunk WHERE job = %s", (job,))
    connection.execute("DELETE FROM restructure.extent WHERE job = %s", (job,))
    connection.execute(
        """INSERT INTO restructure.extent (job, relation, filenode, blocks)
           SELECT %s, r, pg_relation_filenode(r),
                  pg_relation_size(r) / current_setting('block_size')::bigint
           FROM unnest(%s::oid[]) r""",
        (job, relations),
    )


def extents(connection: Connection, job: int) -> list[Extent]:
    """What is to be copied, in the order of the leaves' OIDs."""
    rows = connection.execute(
        "SELECT relation, filenode, blocks FROM restructure.extent WHERE job = %s ORDER BY relation",
        (job,),
    ).fetchall()
    return [Extent(*row) for row in rows]


def finish(connection: Connection, job: int, done: Range, rows: int) -> None:
    """Note a range as copied, in the transaction that copied it."""
    connection.execute(
        "INSERT INTO restructure.chunk (job, relation, first_block, end_block, rows) VALUES (%s, %s, %s, %s, %s)",
        (job, done.relation, done.first, done.end, rows),
    )


def rows_copied(connection: Connection, job: int) -> int:
    """Rows in all finished ranges."""
    row = connection.execute(
        "SELECT coalesce(sum(rows), 0)::bigint FROM restructure.chunk WHERE job = %s", (job,)
    ).fetchone()
    return int(row[0]) if row else 0


def missing(connection: Connection, job: int) -> list[Range]:
    """The ranges not yet copied. Extents of no blocks have none."""
    rows = connection.execute(
        "SELECT relation, first_block, end_block FROM restructure.chunk WHERE job = %s ORDER BY 1, 2",
        (job,),
    ).fetchall()
    done: dict[int, list[tuple[int, int]]] = {}
    for relation, first, end in rows:
        done.setdefault(relation, []).append((first, end))
    gaps: list[Range] = []
    for extent in extents(connection, job):
        gaps.extend(_gaps(extent, done.get(extent.relation, [])))
    return gaps


def _gaps(extent: Extent, done: list[tuple[int, int]]) -> list[Range]:
    gaps = []
    reached = 0
    for first, end in done:
        if first > reached:
            gaps.append(Range(extent.relation, reached, first))
        reached = max(reached, end)
    if reached < extent.blocks:
        gaps.append(Range(extent.relation, reached, extent.blocks))
    return gaps
