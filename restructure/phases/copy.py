"""Copy: every row of the source into a shadow without indexes."""

from __future__ import annotations

from psycopg import sql

from restructure.catalog import chunks
from restructure.engine.copier import Copier, SourceRewritten
from restructure.engine.work import Work
from restructure.model.phase import Phase
from restructure.phases.setup import begin_copy


def run(work: Work) -> None:
    """Copy what is missing; begin again when the source's file was replaced under us."""
    while ranges := chunks.missing(work.state, work.job.id):
        extents = chunks.extents(work.state, work.job.id)
        _expect(work, sum(extent.blocks for extent in extents), sum(part.blocks for part in ranges))
        copier = Copier(
            work.transform(),
            work.source.leaves,
            extents,
            dsn=work.dsn,
            job=work.job.id,
            job_name=work.job.name,
            chunk_target=work.plan.copy_.chunk_target.total_seconds(),
            control=work.control,
            progress=work.progress,
        )
        try:
            copier.copy(ranges, work.plan.copy_.workers)
        except SourceRewritten as rewritten:
            _restart(work, rewritten)
    work.tell("copied", rows=chunks.rows_copied(work.state, work.job.id))
    work.advance(Phase.INDEX)


def _expect(work: Work, total: int, missing: int) -> None:
    row = work.state.execute(
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class WHERE oid = ANY(%s)",
        ([leaf.oid for leaf in work.source.leaves],),
    ).fetchone()
    progress = work.progress
    progress.rows_expected = int(row[0]) if row else 0
    progress.rows_copied = chunks.rows_copied(work.state, work.job.id)
    progress.blocks_total = total
    progress.blocks_copied = total - missing


def _restart(work: Work, reason: SourceRewritten) -> None:
    with work.state.transaction():
        work.state.execute(sql.SQL("TRUNCATE {}").format(work.made_shadow().relation.identifier))
        work.state.execute(sql.SQL("DELETE FROM {}").format(work.spool.quarantine))
        begin_copy(work)
    work.tell("copy begins again", why=reason.message)
