"""Pause and stop act on statements that would run for hours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest

from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.errors import Interrupted
from restructure.postgres.connect import Connection, connect
from tests.pipeline.moments import eventually, value

WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'restructure job long'"
    " AND wait_event_type = 'Lock'"
)


@pytest.fixture
def control() -> Iterator[Control]:
    crew = Crew()
    yield Control(crew)
    crew.dismiss()


@pytest.fixture
def session(database: str) -> Iterator[Connection]:
    with connect(database, job="job", role="long") as made:
        made.execute("CREATE TABLE held ()")
        yield made


class Errand:
    """Runs in a thread; ``error`` is what it raised."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # kept for the test
            self.error = error


@pytest.fixture
def holder(database: str, session: Connection) -> Iterator[psycopg.Connection]:
    """Somebody whose lock makes every statement on ``held`` a long one."""
    with psycopg.connect(database) as made:
        made.execute("LOCK TABLE held")
        yield made


def read_held(control: Control, session: Connection) -> Errand:
    return Errand(
        lambda: control.long_statement(session, lambda: session.execute("TABLE held") and None)
    )


def test_a_pause_cancels_a_long_statement_and_the_end_of_it_runs_it_again(
    control: Control,
    session: Connection,
    holder: psycopg.Connection,
    connection: psycopg.Connection,
) -> None:
    errand = read_held(control, session)
    eventually(lambda: value(connection, WAITS) == 1, "the statement runs")
    control.pause()
    eventually(lambda: value(connection, WAITS) == 0, "it is cancelled")
    control.resume()
    eventually(lambda: value(connection, WAITS) == 1, "it runs again")
    holder.rollback()
    errand.join()
    assert errand.error is None


def test_a_pause_that_was_over_before_the_cancel_was_noticed_is_still_ours(
    control: Control,
    session: Connection,
    holder: psycopg.Connection,
    connection: psycopg.Connection,
) -> None:
    errand = read_held(control, session)
    for _ in range(5):
        eventually(lambda: value(connection, WAITS) == 1, "the statement runs")
        control.pause()
        control.resume()
    holder.rollback()
    errand.join()
    assert errand.error is None


def test_a_cancel_that_came_too_early_is_sent_again(
    control: Control,
    session: Connection,
    holder: psycopg.Connection,
    connection: psycopg.Connection,
) -> None:
    """Between the decision to run a statement and its arrival at the server nothing can be cancelled."""
    allowed = threading.Event()

    def late() -> None:
        if not allowed.is_set():
            control.pause()
            allowed.set()
        session.execute("TABLE held")

    errand = Errand(lambda: control.long_statement(session, late))
    eventually(lambda: value(connection, WAITS) == 1, "the statement runs in spite of the pause")
    control.enforce()
    eventually(lambda: value(connection, WAITS) == 0, "it is cancelled")
    holder.rollback()
    control.resume()
    errand.join()
    assert errand.error is None


def test_a_cancel_by_somebody_else_is_an_error(
    control: Control,
    session: Connection,
    holder: psycopg.Connection,
    connection: psycopg.Connection,
) -> None:
    errand = read_held(control, session)
    eventually(lambda: value(connection, WAITS) == 1, "the statement runs")
    connection.execute("SELECT pg_cancel_backend(%s)", [session.info.backend_pid])
    errand.join()
    assert isinstance(errand.error, psycopg.errors.QueryCanceled)


def test_stop_and_a_failed_thread_end_a_long_statement(
    control: Control,
    session: Connection,
    holder: psycopg.Connection,
    connection: psycopg.Connection,
) -> None:
    errand = read_held(control, session)
    eventually(lambda: value(connection, WAITS) == 1, "the statement runs")
    control.stop("enough")
    errand.join()
    assert isinstance(errand.error, Interrupted)

    crew = Crew()
    second = Control(crew)
    errand = read_held(second, session)
    eventually(lambda: value(connection, WAITS) == 1, "the statement runs")

    def fail() -> None:
        raise ZeroDivisionError

    crew.start("fail", fail)
    errand.join()
    crew.dismiss()
    assert isinstance(errand.error, ZeroDivisionError)


def test_a_throttle_holds_only_who_asks(control: Control) -> None:
    control.throttled = "a replica is behind"
    control.checkpoint()
    held = Errand(lambda: control.checkpoint(throttle=True))
    control.throttled = None
    held.join()
    assert held.error is None
