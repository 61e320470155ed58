"""A running tool asked to verify, and what it found."""

from __future__ import annotations

import psycopg
from psycopg import sql

from restructure.catalog import job as jobs
from restructure.catalog import verification
from restructure.catalog.verification import Verification
from restructure.model.wish import Wish
from restructure.runner import Runner
from tests.pipeline.tool import Tool

Session = psycopg.Connection
SHADOW = "restructure_shape.t"


def known(session: Session) -> Verification:
    """What the catalog says of the only job."""
    job = jobs.all_jobs(session)[0]
    found = verification.load(session, job.id, job.names)
    assert found is not None
    return found


def verify(tool: Tool, session: Session, request: str = "verify") -> Verification:
    """Ask the running tool, and wait for what it finds."""
    before = known(session).ended_at
    session.execute("UPDATE restructure.job SET request = %s", (request,))
    tool.until(lambda: known(session).ended_at not in (before, None))
    return known(session)


def repair(tool: Tool, session: Session) -> Verification:
    """The same, with a repair of what differs."""
    return verify(tool, session, "verify and repair")


def staying(dsn: str, text: str) -> Tool:
    """A tool that goes to ready and stays there."""
    return Tool(dsn, text, Wish(stay=True))


def attend(dsn: str, name: str, wish: Wish) -> None:
    """Run a job in this thread as far as is wished."""
    Runner(dsn, lambda *_: None, lambda *_: None).attend(name, wish)


def differing(session: Session, job: str = "shape") -> set[tuple[str | None, ...]]:
    """Every key that is known to differ."""
    rows = session.execute(
        sql.SQL("SELECT to_jsonb(s) - '{{id,unit,sure}}'::text[] FROM {} AS s WHERE sure").format(
            sql.Identifier("restructure", f"suspects_{job}")
        )
    ).fetchall()
    return {tuple(None if v is None else str(v) for v in key.values()) for (key,) in rows}
