"""The applier over a spool filled by hand: windows, order, and marks that wait for their time."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from restructure.catalog import job as jobs
from restructure.catalog.spool import Spool
from restructure.engine import applier as module
from restructure.engine.applier import Applier
from restructure.engine.control import Control
from restructure.engine.crew import Crew
from restructure.engine.transform import Transform
from restructure.model.change import Batch, Origin, Segment
from restructure.model.wish import Wish
from restructure.shape.shadow import Shadow
from restructure.shape.table import read_relation
from tests.pipeline.moments import eventually, shadow_equals_source, value
from tests.pipeline.tool import Tool
from tests.workload import PLAN, seed

Session = psycopg.Connection
IDS = "SELECT array_agg(k1 ORDER BY id) FROM restructure.spool_items"


@pytest.fixture
def applier(
    database: str, connection: Session, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Applier]:
    """Of a job at ready that nobody runs: what it applies is what we put into the spool."""
    seed(connection, 300)
    with Tool(database, PLAN.format(name="items"), Wish()) as tool:
        tool.finish()
    job = jobs.load(connection, "items")
    assert job.shadow is not None
    source = read_relation(connection, job.source)
    shadow = Shadow.from_json(job.shadow)
    transform = Transform(
        source.relation, shadow.relation, shadow.mapping, Spool(job.names, source.key)
    )
    crew = Crew()
    made = Applier(transform, database, "items", Control(crew))
    monkeypatch.setattr(module, "BATCH_KEYS", 4)
    yield made
    made.close()
    crew.dismiss()


def write(session: Session, *numbers: int, amount: int) -> int:
    """Change rows in one transaction and mark them; its xid."""
    row = session.execute(
        "WITH u AS (UPDATE items SET amount = %(amount)s WHERE id = ANY(%(ids)s))"
        " SELECT pg_current_xact_id()::text",
        {"amount": amount, "ids": list(numbers)},
    ).fetchone()
    assert row is not None
    return int(row[0])


def mark(session: Session, xid: int, *numbers: int, truncated: int | None = None) -> None:
    for number in numbers or (None,):
        session.execute(
            "INSERT INTO restructure.spool_items (xid, truncated, k1) VALUES (%s::text::xid8, %s, %s)",
            [xid, truncated, number],
        )


def apply_all(applier: Applier) -> int:
    total = 0
    while gone := applier.apply(lambda: None):
        total += gone
    return total


def test_an_unsettled_head_lets_later_rows_pass_and_is_taken_later(
    database: str, connection: Session, applier: Applier
) -> None:
    """More of them than a window holds, so that whole windows wait."""
    with psycopg.connect(database) as client:
        waiting = write(client, *range(1, 31), amount=1)
        mark(connection, waiting, *range(1, 31))
        mark(connection, write(connection, *range(101, 131), amount=2), *range(101, 131))
        assert apply_all(applier) == 30
        assert value(connection, IDS) == list(range(1, 31))
        assert apply_all(applier) == 0
        mark(connection, write(connection, 200, amount=3), 200)
        assert apply_all(applier) == 1
        client.commit()
    assert apply_all(applier) == 30
    assert value(connection, IDS) is None
    assert shadow_equals_source(connection)


def test_a_truncation_waits_for_all_before_it_and_holds_all_behind_it(
    database: str, connection: Session, applier: Applier
) -> None:
    source = applier.transform.source.oid
    with psycopg.connect(database) as client:
        waiting = write(client, 1, amount=1)
        mark(connection, waiting, 1)
        mark(connection, write(connection, 2, amount=2), 2)
        mark(connection, write(connection, 3, amount=3), truncated=source)
        mark(connection, write(connection, *range(4, 20), amount=4), *range(4, 20))
        assert apply_all(applier) == 1
        assert value(connection, IDS) == [1, None, *range(4, 20)]
        client.commit()
    assert apply_all(applier) == 18
    # the source was not truncated in truth: what the shadow has now was marked behind it
    held = "SELECT array_agg(id ORDER BY id) FROM restructure_items.items"
    assert value(connection, held) == list(range(4, 20))


def test_a_truncation_that_the_copy_has_seen_is_void(connection: Session, applier: Applier) -> None:
    xid = write(connection, 3, amount=3)
    snapshot = value(connection, "SELECT pg_current_snapshot()::text")
    applier.void_truncations_before(str(snapshot))
    mark(connection, xid, truncated=applier.transform.source.oid)
    assert apply_all(applier) == 1
    assert value(connection, "SELECT count(*) FROM restructure_items.items") == 300


def test_two_sessions_share_a_backlog_by_key(
    connection: Session, applier: Applier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many marks of each key: both sessions at once must never meet at one."""
    monkeypatch.setattr(module, "BATCH_KEYS", 20_000)
    connection.execute("UPDATE items SET amount = -id")
    connection.execute("DELETE FROM items WHERE id > 250")
    connection.execute("INSERT INTO items SELECT n, 'n' || n, n FROM generate_series(301, 400) n")
    connection.execute(
        "INSERT INTO restructure.spool_items (xid, k1) SELECT pg_current_xact_id(), 1 + n %% 400"
        " FROM generate_series(1, %s) n",
        [3 * module._DIVIDE_FROM],
    )
    assert apply_all(applier) == 3 * module._DIVIDE_FROM
    assert shadow_equals_source(connection)


def test_a_mark_that_comes_while_its_key_is_applied_is_kept(
    database: str, connection: Session, applier: Applier
) -> None:
    """Two marks of one key: taking the first must not take the second, whose row is not there yet."""
    mark(connection, write(connection, 7, amount=1), 7)
    with psycopg.connect(database) as client:
        second = write(client, 7, amount=2)
        mark(connection, second, 7)
        assert apply_all(applier) == 1
        assert value(connection, "SELECT amount FROM restructure_items.items WHERE id = 7") == 1
        client.commit()
    assert apply_all(applier) == 1
    assert value(connection, "SELECT amount FROM restructure_items.items WHERE id = 7") == 2


def test_marks_of_a_transaction_rolled_back_cost_a_look_and_nothing_else(
    database: str, connection: Session, applier: Applier
) -> None:
    with psycopg.connect(database) as client:
        mark(connection, write(client, 7, 8, amount=1), 7, 8)
        client.rollback()
    assert apply_all(applier) == 2
    assert shadow_equals_source(connection)


def test_quarantined_keys_come_back_in_the_order_of_ids(
    database: str, connection: Session, applier: Applier
) -> None:
    """A mark with a lower id that became visible later would stay behind the applier for ever."""
    spool = applier.transform.spool
    connection.execute(
        "INSERT INTO restructure.quarantine_items (k1, sqlstate, reason) VALUES (9, '23514', 'x')"
    )
    with psycopg.connect(database) as storer, psycopg.connect(database) as retrier:
        write(storer, 7, amount=7)
        spool.append(storer, [Batch("", [Segment([], {_key(7): Origin(3, None)})])])
        retrier.execute("SET lock_timeout = '1ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            spool.retry_quarantined(retrier)
        retrier.rollback()
        storer.commit()
        assert spool.retry_quarantined(retrier) == 1
        retrier.commit()
    assert value(connection, IDS) == [7, 9]
    assert apply_all(applier) == 2
    assert shadow_equals_source(connection)


def _key(number: int) -> bytes:
    """As the walsender sends an integer: its length, then its value."""
    return (4).to_bytes(4, "big") + number.to_bytes(4, "big")


def test_an_applier_whose_session_was_ended_goes_on_with_new_ones(
    connection: Session, applier: Applier
) -> None:
    mark(connection, write(connection, 7, amount=1), 7)
    assert apply_all(applier) == 1
    connection.execute(
        "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
        " WHERE application_name LIKE 'restructure items apply%'"
    )
    mark(connection, write(connection, 8, amount=1), 8)
    with pytest.raises(psycopg.OperationalError):
        apply_all(applier)
    eventually(lambda: apply_all(applier) == 1, "applied")
    assert shadow_equals_source(connection)
