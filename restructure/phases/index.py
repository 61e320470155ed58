"""Index: rid the shadow of rows copied twice or stale, then build what was set aside."""

from __future__ import annotations

import psycopg
from psycopg import sql

from restructure.catalog import job as jobs
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.work import Work
from restructure.errors import OperatorNeeded
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.phases.catchup import apply_all
from restructure.shape.late_partitions import index_late_partition
from restructure.shape.shadow import SetAside


def run(work: Work) -> None:
    """Fence, delete the spooled keys from the shadow, build the key, then the other indexes.

    The fence comes after the last chunk: a row that was updated during the copy may have been copied in
    both versions, and the commit that made the second one lies before the fence.
    """
    later = [item for item in work.made_shadow().set_aside if item.moment in ("key", "index")]
    later.sort(key=lambda item: item.moment != "key")
    work.progress.indexes_total = len(later)
    built = jobs.reload(work.state, work.job.id).indexes_built
    if not built:
        work.fence()
        _delete_spooled(work)
    for number, item in enumerate(later[built:], built + 1):
        work.progress.indexes_built = number - 1
        _build(work, item, number)
    work.progress.indexes_built = len(later)
    while _build_on_late_partition(work):
        pass
    with work.state.transaction():
        row = work.state.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        jobs.store(work.state, work.job.id, bulk_xid=row[0])
    work.advance(Phase.CATCHUP)


def _delete_spooled(work: Work) -> None:
    statement = work.transform().delete_spooled()

    def delete() -> None:
        with work.state.transaction():
            # no index yet: a hash join reads the shadow once, whatever a role's settings say
            work.state.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_seqscan = on")
            work.state.execute(sql.SQL("ANALYZE {}").format(work.spool.table))
            work.state.execute(statement, {})
            failpoint("index.deleted")

    work.control.long_statement(work.state, delete)


def _build(work: Work, item: SetAside, number: int) -> None:
    """Build one index and count it, in one transaction.

    Where the rows break a new unique index, what is spooled is applied once (the duplicate may be gone
    from the source by now) before a person is asked.
    """

    def build() -> None:
        with work.state.transaction():
            work.state.execute(sql.SQL(item.statement), prepare=True)
            jobs.store(work.state, work.job.id, indexes_built=number)
            failpoint("index.built")

    try:
        work.control.long_statement(work.state, build)
    except psycopg.Error as error:
        if not is_row_error(error):
            raise
        work.fence()
        if number > 1 and apply_all(work):
            _build(work, item, number)
            return
        raise OperatorNeeded(
            f"the rows do not fit {item.name}: {reason(error)}",
            hint="Correct the rows in the source table and run the same command again, "
            "or abort the job and change the plan.",
        ) from error
    work.tell("built", name=item.name)


def _build_on_late_partition(work: Work) -> bool:
    """One index of a partition that somebody has given the shadow since it was made."""
    found: list[str | None] = []

    def build() -> None:
        with work.state.transaction():
            found.append(index_late_partition(work.state, work.made_shadow()))

    try:
        work.control.long_statement(work.state, build)
    except psycopg.Error as error:
        if not is_row_error(error):
            raise
        raise OperatorNeeded(
            f"the rows do not fit the indexes of a partition that was added: {reason(error)}",
            hint="Correct the rows in the source table and run the same command again, "
            "or abort the job and change the plan.",
        ) from error
    return found[-1] is not None
