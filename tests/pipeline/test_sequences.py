"""Sequences with a cache, and clients that draw values ahead: none comes twice across the swap."""

from __future__ import annotations

import random

import psycopg
import pytest

from restructure.model.phase import Phase
from tests.pipeline.shapes import Session, Writers, count, plan, run
from tests.pipeline.tool import Tool

COUNTING = """
CREATE TABLE t (id int GENERATED {kind} AS IDENTITY (CACHE 50) PRIMARY KEY, s serial UNIQUE, v int);
ALTER SEQUENCE t_s_seq CACHE 50;
INSERT INTO t (v) SELECT n FROM generate_series(1, 2000) n;
"""


@pytest.mark.parametrize("kind", ["ALWAYS", "BY DEFAULT"])
def test_no_value_of_a_cached_sequence_comes_twice_across_the_swap(
    database: str, connection: psycopg.Connection, kind: str
) -> None:
    """Some clients let the column count, others draw blocks of values ahead and use them later."""
    run(connection, COUNTING.format(kind=kind))
    fetched: dict[int, list[tuple[int, int]]] = {}

    def counted(session: Session, _: random.Random) -> None:
        run(session, "INSERT INTO t (v) VALUES (0)")

    def drawn(session: Session, chance: random.Random) -> None:
        """Hibernate's pooled optimizer does so. What was drawn is used to the end."""
        mine = fetched.setdefault(session.info.backend_pid, [])
        if not mine:
            mine += session.execute(
                "SELECT nextval('t_id_seq'), nextval('t_s_seq') FROM generate_series(1, 20)"
            ).fetchall()
        number, serial = mine.pop(chance.randrange(len(mine)))
        session.execute(
            "INSERT INTO t (id, s, v) OVERRIDING SYSTEM VALUE VALUES (%s, %s, 1)",
            (number, serial),
        )

    text = plan(
        "t",
        alter=["ALTER id TYPE bigint", "ALTER s TYPE bigint"],
        cutover={"lock_budget": "5s", "attempts": 50},
    )
    with (
        Writers(database, counted, drawn, clients=4) as writers,
        Tool(database, text) as tool,
    ):
        assert tool.finish().phase == Phase.LIVE
        writers.wait_for(400)
        writers.stop()
    assert count(connection, "SELECT count(*) FROM t WHERE v < 2") == writers.acknowledged + 1
    limits = connection.execute(
        "SELECT relname, seqtypid::regtype::text, seqmax, seqcache FROM pg_sequence"
        " JOIN pg_class ON oid = seqrelid WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    ).fetchall()
    assert limits == [
        ("t_id_seq", "bigint", 2**63 - 1, 50),
        ("t_s_seq", "bigint", 2**63 - 1, 50),
    ]
