"""Threads: the first failure stops all of them, and is what everybody sees."""

from __future__ import annotations

import threading

import pytest

from restructure.engine.crew import Crew
from restructure.errors import Interrupted


class Broken(Exception):
    pass


def fail() -> None:
    raise Broken


def test_the_first_failure_stops_the_others_and_is_what_everybody_sees() -> None:
    crew = Crew()
    told: list[bool] = []
    crew.on_failure = lambda: told.append(crew.stopping.is_set())
    ended = threading.Event()

    def stand() -> None:
        crew.stopping.wait(60)
        ended.set()
        raise RuntimeError("a consequence, not the cause")

    crew.start("stand", stand)
    crew.start("fail", fail)
    assert ended.wait(60)
    crew.dismiss()
    with pytest.raises(Broken):
        crew.check()
    assert told == [True]


def test_a_failure_after_the_end_was_asked_for_is_no_failure() -> None:
    crew = Crew()
    leaving = threading.Event()

    def stand() -> None:
        leaving.wait(60)
        fail()

    crew.start("stand", stand)
    crew.stopping.set()
    leaving.set()
    crew.dismiss()
    crew.dismiss()
    crew.check()


def test_errands_all_end_before_the_first_failure_is_raised() -> None:
    crew = Crew()
    done: list[int] = []
    failed = threading.Event()

    def slow() -> None:
        assert failed.wait(60)
        done.append(1)

    def quick() -> None:
        failed.set()
        fail()

    with pytest.raises(Broken):
        crew.run_all([slow, quick, lambda: done.append(2)])
    assert sorted(done) == [1, 2]


def test_a_failure_of_an_errand_counts_more_than_an_interruption() -> None:
    def interrupted() -> None:
        raise Interrupted("asked to stop")

    with pytest.raises(Broken):
        Crew().run_all([interrupted, fail])
    with pytest.raises(Interrupted):
        Crew().run_all([interrupted, lambda: None])
