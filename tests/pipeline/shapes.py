"""Tables of every shape: written to while they are restructured, then compared with what they were.

The writers stop before the swap, so that the retired table is the truth: the new table must be
its transform, row for row, bit for bit of each value's text.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from restructure.catalog.job import Job
from restructure.model.names import Names
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from tests.pipeline.tool import Tool

Session = psycopg.Connection
Step = str | Callable[[Session, random.Random], None]

JOB = "shape"
RETIRED = Names.of(JOB).retired_schema
ONE_TRY = {"attempts": 1, "lock_budget": "5s"}
"""For a cutover that must fail. One that must not needs more, for a busy machine may spoil some."""


def plan(table: str, *, alter: list[str] | None = None, **sections: object) -> str:
    """A plan file for ``table``. JSON is YAML, and quotes whatever a name may hold."""
    shape = {} if "create" in sections else {"alter": alter or []}
    tuning = {"copy": {"workers": 2, "chunk_target": "20ms"}, "cutover": {"lock_budget": "5s"}}
    document = {"name": JOB, "table": table} | shape | tuning | sections
    return json.dumps(document, ensure_ascii=False)


def run(session: Session, statement: str) -> None:
    """Run SQL that a test has written, percent signs and all."""
    session.execute(sql.SQL(statement))


class Writers:
    """Clients that run random ``steps`` until they are stopped, each step a transaction."""

    def __init__(self, dsn: str, *steps: Step, clients: int = 2) -> None:
        self.acknowledged = 0
        self._dsn = dsn
        self._steps = steps
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Stop; raise what a client has met."""
        self.__exit__()
        self._check()

    def wait_for(self, count: int) -> None:
        """Until ``count`` more transactions are acknowledged."""
        goal = self.acknowledged + count
        while self.acknowledged < goal:
            self._check()
            time.sleep(0.01)

    def _check(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        try:
            with psycopg.connect(self._dsn, autocommit=True) as session:
                while not self._stop.wait(0.002):
                    step = chance.choice(self._steps)
                    try:
                        with session.transaction():
                            if callable(step):
                                step(session, chance)
                            else:
                                run(session, step)
                    except psycopg.errors.SerializationFailure:
                        continue  # two clients moved one row between partitions: one tries again
                    self.acknowledged += 1
        except BaseException as error:  # raised again by stop
            self._failures.append(error)


def restructure(dsn: str, text: str, *steps: Step, writes: int = 60) -> Job:
    """Run a plan to live while clients write, up to a little before the swap."""
    if not steps:
        with Tool(dsn, text) as tool:
            return tool.finish()
    with Writers(dsn, *steps) as writers, Tool(dsn, text, hold="ready entered") as tool:
        tool.held()
        writers.wait_for(writes)
        writers.stop()
        job = tool.finish()
    assert job.phase == Phase.LIVE
    return job


def until_ready(dsn: str, text: str) -> Tool:
    """A tool that stays at ready, to be asked for the cutover with :func:`ask_for_cutover`."""
    return Tool(dsn, text, Wish(stay=True))


def ask_for_cutover(session: Session) -> None:
    session.execute("UPDATE restructure.job SET request = 'cutover'")


def assert_transformed(
    session: Session, table: str, old: str, new: str = "*", where: str = "true"
) -> None:
    """Every row of the new table is the transform of one retired row, and the other way round.

    ``table`` is the quoted name without a schema; ``old`` lists expressions over the retired row;
    ``new`` the columns they must be in.
    """
    schema = session.execute(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = (SELECT source FROM restructure.job)"
    ).fetchone()
    assert schema == (RETIRED,), "the source has not retired"
    before = f"SELECT ROW({old})::text FROM {RETIRED}.{table} WHERE {where}"
    after = f"SELECT ROW({_columns(session, table, new)})::text FROM {_new(session, table)}"
    for one, other, what in ((before, after, "missing"), (after, before, "of no old row")):
        statement = f"({one}) EXCEPT ALL ({other}) LIMIT 3"
        wrong = session.execute(sql.SQL(statement)).fetchall()
        assert not wrong, f"{what}: {str(wrong)[:2000]}"


def _new(session: Session, table: str) -> str:
    row = session.execute("SELECT split_part(source_name, '.', 1) FROM restructure.job").fetchone()
    assert row is not None
    return f"{sql.Identifier(row[0]).as_string(session)}.{table}"


def _columns(session: Session, table: str, columns: str) -> str:
    if columns != "*":
        return columns
    rows = session.execute(
        "SELECT quote_ident(attname) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [_new(session, table)],
    ).fetchall()
    return ", ".join(name for (name,) in rows)


def count(session: Session, query: str) -> int:
    """The one number that a query returns."""
    found = one(session, query)
    assert isinstance(found, int)
    return found


def one(session: Session, query: str) -> object:
    """The one value that a query returns."""
    row = session.execute(sql.SQL(query)).fetchone()
    return None if row is None else row[0]
