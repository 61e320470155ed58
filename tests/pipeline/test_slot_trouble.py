"""What other people do to the slot and the publication: a gap is never taken for the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import pytest

from restructure.errors import OperatorNeeded, StreamGap
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.runner import Runner
from tests.pipeline.moments import (
    Gate,
    assert_swapped_whole,
    differences,
    eventually,
    settings,
    value,
    wait_until_released,
)
from tests.pipeline.tool import Tool, leftovers, run_to_live
from tests.workload import PLAN, seed

ITEMS = PLAN.format(name="items")
Session = psycopg.Connection


@pytest.fixture
def items(connection: Session) -> Session:
    seed(connection, 300)
    return connection


def drop_slot(session: Session) -> None:
    """Against a reader that comes back at once."""

    def dropped() -> bool:
        session.execute(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            " WHERE slot_name = 'restructure_items' AND active_pid IS NOT NULL"
        )
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            session.execute("SELECT pg_drop_replication_slot('restructure_items')")
            return True
        return False

    eventually(dropped, "the slot is dropped")


def remake_slot(session: Session) -> None:
    """A slot of the same name that has not seen the write in between."""
    drop_slot(session)
    session.execute("UPDATE items SET amount = 7777 WHERE id = 5")
    session.execute("SELECT pg_create_logical_replication_slot('restructure_items', 'pgoutput')")


def advance_slot(session: Session) -> None:
    session.execute("UPDATE items SET amount = 7777 WHERE id = 5")
    session.execute("SELECT pg_replication_slot_advance('restructure_items', pg_current_wal_lsn())")


def drop_publication(session: Session) -> None:
    session.execute("DROP PUBLICATION restructure_items")
    session.execute("UPDATE items SET amount = 7777 WHERE id = 5")


def remake_publication(session: Session) -> None:
    """As it was, but for the write in between, which PostgreSQL 18 leaves out silently."""
    drop_publication(session)
    session.execute("CREATE PUBLICATION restructure_items FOR TABLE items (id)")
    session.execute("COMMENT ON PUBLICATION restructure_items IS 'made by restructure'")


def narrow_publication(session: Session) -> None:
    session.execute("ALTER PUBLICATION restructure_items SET (publish = 'insert')")
    session.execute("UPDATE items SET amount = 7777 WHERE id = 5")
    session.execute(
        "ALTER PUBLICATION restructure_items SET (publish = 'insert, update, delete, truncate')"
    )


def empty_publication(session: Session) -> None:
    session.execute("ALTER PUBLICATION restructure_items DROP TABLE items")
    session.execute("UPDATE items SET amount = 7777 WHERE id = 5")


def lose_slot(session: Session) -> None:
    """The server removes WAL that the slot needs (max_slot_wal_keep_size)."""
    with settings(
        session.info.dsn + f" password={session.info.password}", max_slot_wal_keep_size="1"
    ):
        for _ in range(4):
            session.execute("SELECT pg_logical_emit_message(false, 'fill', 'x'), pg_switch_wal()")

        def lost() -> bool:
            session.execute("CHECKPOINT")  # the first may come before its process has the setting
            return value(session, "SELECT wal_status FROM pg_replication_slots") == "lost"

        eventually(lost, "the slot is lost")


@pytest.fixture
def started_over(database: str, items: Session) -> Iterator[None]:
    """Afterwards: the source still serves, abort leaves nothing and the plan runs to the end."""
    yield
    assert value(items, "SELECT phase FROM restructure.job") != Phase.LIVE
    assert str(value(items, "SELECT format_type(atttypid, 0) FROM pg_attribute WHERE attname = 'id'"
                     " AND attrelid = 'items'::regclass")) == "integer"  # fmt: skip
    Runner(database, lambda *_: None, lambda *_: None).abort("items")
    assert leftovers(database) == []
    assert run_to_live(database, ITEMS).phase == Phase.LIVE
    assert_swapped_whole(items)


AT_WORK: list[Callable[[Session], None]] = [
    drop_slot,
    remake_slot,
    drop_publication,
    remake_publication,
    narrow_publication,
    empty_publication,
]


@pytest.mark.usefixtures("started_over")
@pytest.mark.parametrize("trouble", AT_WORK, ids=lambda trouble: trouble.__name__)
def test_a_stream_spoiled_while_the_job_waits_stops_it(
    database: str, items: Session, trouble: Callable[[Session], None]
) -> None:
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        trouble(items)
        with pytest.raises(OperatorNeeded) as stopped:
            tool.finish()
    assert stopped.value.exit_code == 6
    assert "slot" in stopped.value.message or "publication" in stopped.value.message


@pytest.mark.usefixtures("started_over")
@pytest.mark.parametrize(
    "trouble",
    [drop_slot, remake_slot, advance_slot, lose_slot, remake_publication],
    ids=lambda trouble: trouble.__name__,
)
def test_a_stream_spoiled_while_nobody_ran_the_job_is_a_gap(
    database: str, items: Session, trouble: Callable[[Session], None]
) -> None:
    with Tool(database, ITEMS, Wish()) as tool:
        assert tool.finish().phase == Phase.READY
    wait_until_released(items)
    trouble(items)
    with pytest.raises(StreamGap) as gap:
        run_to_live(database, ITEMS)
    assert gap.value.exit_code == 6


@pytest.mark.parametrize(
    "trouble",
    [drop_publication, remake_publication, narrow_publication],
    ids=lambda trouble: trouble.__name__,
)
def test_a_publication_spoiled_just_before_the_lock_is_seen_under_it(
    database: str, items: Session, trouble: Callable[[Session], None]
) -> None:
    with Gate("cutover.prepared") as gate, Tool(database, ITEMS) as tool:
        tool.until(lambda: gate.reached)
        trouble(items)
        gate.open()
        with pytest.raises(OperatorNeeded):
            tool.finish()
    assert value(items, "SELECT phase FROM restructure.job") != Phase.LIVE


def test_changes_that_somebody_else_took_from_the_slot_are_missed(
    database: str, items: Session
) -> None:
    with Tool(database, ITEMS, Wish()) as tool:
        tool.finish()
    wait_until_released(items)
    items.execute("UPDATE items SET amount = 7777 WHERE id = 5")
    taken = items.execute(
        "SELECT count(*) FROM pg_logical_slot_get_binary_changes('restructure_items', NULL, NULL,"
        " 'proto_version', '2', 'publication_names', 'restructure_items')"
    ).fetchone()
    assert taken is not None
    assert taken[0] > 0
    with pytest.raises(StreamGap, match="beyond our"):
        run_to_live(database, ITEMS)
    assert differences(items, "public.items", "restructure_items.items") != []
