"""The tool in a thread of the test: started, watched, asked and stopped as a person would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psycopg

from restructure.catalog import job as jobs
from restructure.catalog.job import Job
from restructure.errors import Interrupted
from restructure.model.phase import Phase
from restructure.model.progress import Progress
from restructure.model.wish import Wish
from restructure.plan.load import parse_plan
from restructure.postgres.connect import connect
from restructure.runner import Runner

Event = tuple[str, str, dict[str, Any]]

PATIENCE = 90.0
NOT_YET = "cutover not yet"


def run_to_live(dsn: str, plan: str) -> Job:
    """Run a plan through its cutover in this thread."""
    return Runner(dsn, lambda *_: None, lambda *_: None).run(parse_plan(plan), Wish(cutover=True))


class Tool:
    """``with Tool(dsn, plan) as tool``: runs in the background until done, failed or left."""

    def __init__(
        self, dsn: str, plan: str, wish: Wish | None = None, *, hold: str | None = None
    ) -> None:
        self.dsn = dsn
        self.events: list[Event] = []
        self.progress: list[tuple[Phase, Progress]] = []
        self.job: Job | None = None
        self.error: BaseException | None = None
        self._hold = hold
        self._held = threading.Event()
        self._go = threading.Event()
        self._loaded = parse_plan(plan)
        self._wish = wish or Wish(cutover=True)
        self._runner = Runner(
            dsn, self._note, lambda phase, progress: self.progress.append((phase, progress))
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Tool:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go.set()
        if self._thread.is_alive():
            self._runner.stop("the test is over")
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the tool did not stop"

    @property
    def happened(self) -> list[str]:
        return [event for _, event, _ in self.events]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """Until the event happened ``count`` times; its detail. Fails if the tool ends before."""
        self.until(lambda: self.happened.count(event) >= count)
        return [detail for _, name, detail in self.events if name == event][count - 1]

    def not_yet(self, *words: str) -> str:
        """Until a try for the cutover failed for a reason that holds all ``words``; the reason.

        On a busy machine a try may fail before that because the stream was slow.
        """

        def found() -> list[str]:
            reasons = [detail["why"] for _, event, detail in self.events if event == NOT_YET]
            return [why for why in reasons if all(word in why for word in words)]

        self.until(lambda: bool(found()))
        return found()[0]

    def wait_for_phase(self, phase: Phase) -> None:
        self.until(
            lambda: any(
                entered == phase and event == "entered" for entered, event, _ in self.events
            )
        )

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if not self._thread.is_alive() and not condition():
                raise AssertionError(
                    f"the tool ended with {self.error!r} after {self.events}"
                ) from self.error
            assert time.monotonic() < deadline, f"waited in vain; {self.events[-5:]}"
            time.sleep(0.01)

    def finish(self, patience: float = PATIENCE) -> Job:
        """Wait for the end; raise what the tool raised. One that stays is stopped after its swap."""
        self._go.set()
        if self._wish.stay:
            deadline = time.monotonic() + patience
            while self._thread.is_alive() and "done" not in self.happened:
                assert time.monotonic() < deadline, f"no swap: {self.events[-5:]}"
                time.sleep(0.01)
            self._runner.stop("enough")
        self._thread.join(patience)
        assert not self._thread.is_alive(), f"the tool did not end: {self.events[-5:]}"
        if isinstance(self.error, Interrupted) and self._wish.stay:
            with connect(self.dsn) as session:
                return jobs.load(session, self._loaded.plan.name)
        if self.error is not None:
            raise self.error
        assert self.job is not None
        return self.job

    def held(self) -> None:
        """Wait until the tool stands at the event it was to be held at."""
        self.until(self._held.is_set)

    def release(self) -> None:
        self._go.set()

    def _note(self, phase: str, event: str, detail: dict[str, Any]) -> None:
        self.events.append((phase, event, detail))
        if (
            self._hold is not None
            and self._hold in (event, f"{phase} {event}")
            and not self._go.is_set()
        ):
            self._held.set()
            self._go.wait(PATIENCE)

    def _run(self) -> None:
        try:
            self.job = self._runner.run(self._loaded, self._wish)
        except BaseException as error:  # raised again by finish
            self.error = error


def leftovers(dsn: str) -> list[str]:
    """Everything of ours in the database: empty after an abort of the last job."""
    with psycopg.connect(dsn) as session:
        return [
            row[0]
            for row in session.execute(
                """
                SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'restructure%'
                UNION ALL SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE 'restructure%'
                UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
                UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'restructure%'
                ORDER BY 1
                """
            ).fetchall()
        ]
