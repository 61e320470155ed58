"""What is still to copy, and who may say that a job has advanced."""

from __future__ import annotations

import itertools
import random

import psycopg
import pytest

from restructure.catalog import chunks, schema
from restructure.catalog import job as jobs
from restructure.catalog.chunks import Range
from restructure.catalog.job import Job, LostToken
from restructure.model.phase import Phase


@pytest.fixture
def job(connection: psycopg.Connection) -> Job:
    schema.ensure(connection)
    return jobs.create(
        connection, name="job", plan="", plan_file="", digest="", source=1, source_name="t"
    )


def extent(session: psycopg.Connection, job: int, relation: int, blocks: int) -> None:
    session.execute(
        "INSERT INTO restructure.extent VALUES (%s, %s, 1, %s)", [job, relation, blocks]
    )


def test_ranges_that_are_missing_are_found_between_those_done(
    connection: psycopg.Connection, job: Job
) -> None:
    for relation, blocks in ((11, 10), (12, 0), (13, 7), (14, 5)):
        extent(connection, job.id, relation, blocks)
    for relation, first, end in ((11, 2, 4), (11, 4, 5), (11, 8, 10), (13, 0, 7)):
        chunks.finish(connection, job.id, Range(relation, first, end), 1)
    assert chunks.missing(connection, job.id) == [
        Range(11, 0, 2),
        Range(11, 5, 8),
        Range(14, 0, 5),
    ]
    assert chunks.rows_copied(connection, job.id) == 4


def test_whatever_was_done_in_whatever_order_every_block_is_done_or_missing(
    connection: psycopg.Connection, job: Job
) -> None:
    chance = random.Random(4)
    for relation in range(20, 40):
        blocks = chance.randrange(1, 30)
        extent(connection, job.id, relation, blocks)
        cuts = sorted({0, blocks, *(chance.randrange(blocks) for _ in range(6))})
        parts = [Range(relation, *pair) for pair in itertools.pairwise(cuts)]
        chance.shuffle(parts)
        done = parts[: len(parts) // 2]
        for part in done:
            chunks.finish(connection, job.id, part, 0)
        missing = [part for part in chunks.missing(connection, job.id) if part.relation == relation]
        covered = sorted(
            block for part in (*done, *missing) for block in range(part.first, part.end)
        )
        assert covered == list(range(blocks))


def test_an_earlier_runner_advances_nothing(connection: psycopg.Connection, job: Job) -> None:
    first = jobs.take_over(connection, job.id)
    second = jobs.take_over(connection, job.id)
    with pytest.raises(LostToken):
        jobs.advance(connection, job.id, first, Phase.PLANNED, Phase.SETUP)
    jobs.advance(connection, job.id, second, Phase.PLANNED, Phase.SETUP)
    with pytest.raises(LostToken):
        jobs.advance(connection, job.id, second, Phase.PLANNED, Phase.SETUP)
    assert jobs.reload(connection, job.id).phase == Phase.SETUP
    connection.execute("DELETE FROM restructure.job")
    with pytest.raises(LostToken):
        jobs.take_over(connection, job.id)
