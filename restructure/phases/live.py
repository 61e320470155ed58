"""Live: clients use the new shape. What the swap left for afterwards is done here, and can be repeated."""

from __future__ import annotations

import psycopg
from psycopg import errors as pg
from psycopg import sql

from restructure.catalog import job as jobs
from restructure.engine.refusal import is_row_error, reason
from restructure.engine.work import Work
from restructure.errors import OperatorNeeded
from restructure.model.failpoint import failpoint
from restructure.model.phase import Phase
from restructure.model.relation import Relation
from restructure.shape.made import SetAside

_LOCK_TIMEOUT = "50ms"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


def run(work: Work) -> None:
    """Give up the forward stream, validate foreign keys, refresh statistics."""
    if work.capture is not None:
        work.capture.stop()
    if work.applier is not None:
        work.applier.close()
    failpoint("live.stopped")
    work.stream.drop()
    work.spool.drop(work.state)
    failpoint("live.dropped")
    shadow = work.made_shadow()
    table = _place(work, shadow.relation.oid)
    for item in shadow.set_aside:
        if item.moment == "after":
            _complete(work, item)
    work.control.long_statement(
        work.state, lambda: _execute(work, sql.SQL("ANALYZE {}").format(table.identifier))
    )
    jobs.store(work.state, work.job.id, request=None)
    work.tell("done", retired=f"{work.names.retired_schema}.{work.source.relation.name}")


def finalize(work: Work) -> None:
    """Drop the retired table and everything else of the job but its history."""
    schemas = (work.names.retired_schema, work.names.shadow_schema)
    with work.state.transaction():
        work.state.execute("SET LOCAL lock_timeout = '5s'")
        for schema in schemas:
            work.state.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
            )
        jobs.advance(work.state, work.job.id, work.token, Phase.LIVE, Phase.FINALIZED)
    work.phase = Phase.FINALIZED
    work.listener(Phase.FINALIZED, "entered", {})


def _place(work: Work, oid: int) -> Relation:
    """Where the new table stands now."""
    row = work.state.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        (oid,),
    ).fetchone()
    if row is None:
        raise OperatorNeeded(
            "the new table was dropped", hint="Nothing is left for this job to do."
        )
    return Relation(oid, row[0], row[1])


def _complete(work: Work, item: SetAside) -> None:
    """Run one statement, again and again where it locks writers out and they do not let it."""
    pause = _FIRST_PAUSE
    while True:
        try:
            work.control.long_statement(work.state, lambda: _execute_in_turn(work, item))
            break
        except pg.LockNotAvailable:
            work.control.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        except pg.DuplicateObject:
            break  # by a process that ended before it had done the rest
        except (pg.UndefinedObject, pg.UndefinedTable) as error:
            work.tell("warning", message=f"{item.name} was dropped since the swap: {reason(error)}")
            return
        except psycopg.Error as error:
            if not is_row_error(error):
                raise
            raise OperatorNeeded(
                f"constraint {item.name} is in place but could not be validated: {reason(error)}",
                hint="New rows are checked. Correct the old ones, then run the same command again.",
            ) from error
    work.tell("validated", name=item.name)
    failpoint("live.validated")


def _execute_in_turn(work: Work, item: SetAside) -> None:
    """Nobody may queue behind us for long: SHARE UPDATE EXCLUSIVE is what no reader or writer minds."""
    if item.lock.startswith("SHARE UPDATE EXCLUSIVE"):
        _execute(work, sql.SQL(item.statement))
        return
    with work.state.transaction():
        work.state.execute("SELECT set_config('lock_timeout', %s, true)", (_LOCK_TIMEOUT,))
        _execute(work, sql.SQL(item.statement))


def _execute(work: Work, statement: sql.SQL | sql.Composed) -> None:
    work.state.execute(statement)
