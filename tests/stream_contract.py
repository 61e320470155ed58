"""What every Stream must do. Run a connector through it by giving a Stage to each of CONTRACT."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg
import pytest

from restructure.errors import StreamGap
from restructure.model.change import Batch, Origin
from restructure.model.relation import KeyColumn, Relation, Watched
from restructure.ports import Stream

PATIENCE = 60.0


@dataclass
class Stage:
    """A table ``items (id int primary key, note text)`` and a connector that can follow it.

    ``make`` returns a new Stream over the same job each time; ``session`` is in autocommit.
    """

    session: psycopg.Connection
    make: Callable[[], Stream]
    made: list[Stream] = field(default_factory=list)

    def stream(self) -> Stream:
        stream = self.make()
        self.made.append(stream)
        return stream

    def opened(self) -> Stream:
        """A stream prepared and opened from its start."""
        stream = self.stream()
        watched = self.watched()
        stream.open(watched, stream.prepare(watched))
        return stream

    def watched(self) -> Watched:
        return watch(self.session, "items", key=["id"])

    def close(self) -> None:
        for stream in self.made:
            stream.close()
        if self.made:
            self.made[-1].drop()


def watch(
    session: psycopg.Connection, *tables: str, key: Sequence[str], full: bool = False
) -> Watched:
    """Describe tables that share one key, as the core would."""
    relations = tuple(
        Relation(*row)
        for table in tables
        for row in session.execute(
            "SELECT c.oid::bigint, n.nspname, c.relname FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass",
            [table],
        )
    )
    columns = tuple(
        KeyColumn(*row)
        for name in key
        for row in session.execute(
            "SELECT attname, atttypid::bigint, format_type(atttypid, atttypmod), NULL"
            " FROM pg_attribute WHERE attrelid = %s AND attname = %s",
            [relations[0].oid, name],
        )
    )
    assert len(columns) == len(key)
    return Watched(relations, columns, full)


def until_fence(stream: Stream, max_keys: int = 10_000) -> list[Batch]:
    """Everything that was committed before this call, as batches."""
    return until(stream, stream.fence(), max_keys)


def until(stream: Stream, fence: str, max_keys: int = 10_000) -> list[Batch]:
    """Poll until ``fence`` is covered."""
    deadline = time.monotonic() + PATIENCE
    batches: list[Batch] = []
    while not (batches and stream.reached(batches[-1].position, fence)):
        assert time.monotonic() < deadline, "the fence was not reached"
        batch = stream.poll(0.5, max_keys)
        if batch is not None:
            batches.append(batch)
    return batches


def keys_of(batches: Sequence[Batch]) -> dict[bytes, Origin]:
    """All dirty keys, with the last origin of each."""
    return {
        key: origin
        for batch in batches
        for segment in batch.segments
        for key, origin in segment.keys.items()
    }


def int_key(value: int) -> bytes:
    """COPY BINARY's field of an int4."""
    return (4).to_bytes(4) + value.to_bytes(4, signed=True)


def _ids(batches: Sequence[Batch]) -> set[int]:
    return {int.from_bytes(key[4:], signed=True) for key in keys_of(batches)}


def every_kind_of_change_dirties_its_key(stage: Stage) -> None:
    stream = stage.opened()
    stage.session.execute("INSERT INTO items SELECT g FROM generate_series(1, 5) g")
    assert _ids(until_fence(stream)) == {1, 2, 3, 4, 5}
    stage.session.execute("UPDATE items SET note = 'x' WHERE id = 2")
    stage.session.execute("DELETE FROM items WHERE id = 3")
    assert _ids(until_fence(stream)) == {2, 3}


def a_changed_key_dirties_both(stage: Stage) -> None:
    stage.session.execute("INSERT INTO items VALUES (1)")
    stream = stage.opened()
    stage.session.execute("UPDATE items SET id = 100")
    assert _ids(until_fence(stream)) == {1, 100}


def origins_are_top_level_transactions_that_committed(stage: Stage) -> None:
    stream = stage.opened()
    with stage.session.transaction():
        row = stage.session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        with stage.session.transaction():
            stage.session.execute("INSERT INTO items VALUES (7)")
    batches = until_fence(stream)
    origin = keys_of(batches)[int_key(7)]
    assert row is not None
    assert origin.xid == row[0]
    assert origin.committed is not None
    assert batches[-1].committed is not None
    assert batches[-1].committed >= origin.committed


def the_last_of_several_transactions_is_a_keys_origin(stage: Stage) -> None:
    stream = stage.opened()
    for note in "abc":
        stage.session.execute(
            "INSERT INTO items VALUES (1) ON CONFLICT (id) DO UPDATE SET note = %s", [note]
        )
    row = stage.session.execute("SELECT xmin::text::bigint FROM items").fetchone()
    assert row is not None
    assert keys_of(until_fence(stream))[int_key(1)].xid % (1 << 32) == row[0]


def a_truncation_comes_in_its_place(stage: Stage) -> None:
    stream = stage.opened()
    stage.session.execute("INSERT INTO items VALUES (1)")
    stage.session.execute("TRUNCATE items")
    stage.session.execute("INSERT INTO items VALUES (2)")
    (oid,) = (relation.oid for relation in stage.watched().relations)
    seen: list[object] = []
    for batch in until_fence(stream):
        for segment in batch.segments:
            seen += [("truncated", truncation.relation) for truncation in segment.truncations]
            seen += segment.keys
    assert seen == [int_key(1), ("truncated", oid), int_key(2)]


def a_rolled_back_transaction_changes_nothing_settled(stage: Stage) -> None:
    stream = stage.opened()
    with stage.session.transaction(force_rollback=True):
        stage.session.execute("INSERT INTO items VALUES (1)")
        stage.session.execute("TRUNCATE items")
    batches = until_fence(stream)
    assert not any(segment.truncations for batch in batches for segment in batch.segments)
    assert all(origin.committed is None for origin in keys_of(batches).values())


def a_fence_is_reached_though_nobody_writes(stage: Stage) -> None:
    stream = stage.opened()
    for _ in range(3):
        assert until_fence(stream)[-1].empty


def a_batch_keeps_to_its_limit(stage: Stage) -> None:
    stream = stage.opened()
    stage.session.execute("INSERT INTO items SELECT g FROM generate_series(1, 3000) g")
    batches = until_fence(stream, max_keys=500)
    assert max(batch.key_count for batch in batches) <= 500
    assert _ids(batches) == set(range(1, 3001))


def what_was_not_confirmed_comes_again(stage: Stage) -> None:
    first = stage.stream()
    watched = stage.watched()
    start = first.prepare(watched)
    first.open(watched, start)
    stage.session.execute("INSERT INTO items VALUES (1)")
    assert _ids(until_fence(first)) == {1}
    first.close()
    second = stage.stream()
    second.open(watched, start)
    assert _ids(until_fence(second)) == {1}


def what_was_confirmed_does_not_come_again(stage: Stage) -> None:
    first = stage.opened()
    stage.session.execute("INSERT INTO items VALUES (1)")
    stage.session.execute("TRUNCATE items")
    position = until_fence(first)[-1].position
    first.confirm(position)
    first.close()
    second = stage.stream()
    second.open(stage.watched(), position)
    stage.session.execute("INSERT INTO items VALUES (2)")
    batches = until_fence(second)
    assert _ids(batches) == {2}
    assert not any(segment.truncations for batch in batches for segment in batch.segments)


def a_stored_position_is_enough_without_confirmation(stage: Stage) -> None:
    """The process died after its own commit, before it could confirm."""
    first = stage.opened()
    stage.session.execute("INSERT INTO items VALUES (1)")
    stage.session.execute("TRUNCATE items")
    position = until_fence(first)[-1].position
    first.close()
    second = stage.stream()
    second.open(stage.watched(), position)
    stage.session.execute("INSERT INTO items VALUES (2)")
    batches = until_fence(second)
    assert _ids(batches) == {2}
    assert not any(segment.truncations for batch in batches for segment in batch.segments)


def preparing_twice_keeps_the_stream(stage: Stage) -> None:
    first = stage.stream()
    watched = stage.watched()
    first.prepare(watched)
    stage.session.execute("INSERT INTO items VALUES (1)")
    second = stage.stream()
    second.open(watched, second.prepare(watched))
    assert _ids(until_fence(second)) == {1}


def dropping_is_complete_and_may_be_repeated(stage: Stage) -> None:
    stream = stage.stream()
    watched = stage.watched()
    position = stream.prepare(watched)
    stream.open(watched, position)
    stream.drop()
    stream.drop()
    with pytest.raises(StreamGap):
        stage.stream().open(watched, position)


def a_stream_that_was_made_anew_is_a_gap(stage: Stage) -> None:
    stream = stage.stream()
    watched = stage.watched()
    position = stream.prepare(watched)
    stream.drop()
    stage.session.execute("INSERT INTO items VALUES (1)")
    stream.prepare(watched)
    with pytest.raises(StreamGap):
        stream.open(watched, position)


def nothing_to_poll_is_none(stage: Stage) -> None:
    stream = stage.opened()
    until_fence(stream)
    stream.keepalive()
    assert stream.poll(0.0, 10) is None


def lag_falls_when_the_position_is_confirmed(stage: Stage) -> None:
    stream = stage.opened()
    stage.session.execute("INSERT INTO items SELECT g FROM generate_series(1, 2000) g")
    before = stream.lag()
    assert before.healthy
    assert before.lag_bytes > 100_000
    stream.confirm(until_fence(stream)[-1].position)
    deadline = time.monotonic() + PATIENCE
    while stream.lag().lag_bytes >= 100_000:
        assert time.monotonic() < deadline, "the confirmed position did not arrive"
        stream.poll(0.05, 10)


def closing_ends_a_poll_in_another_thread(stage: Stage) -> None:
    stream = stage.opened()
    until_fence(stream)
    began = threading.Event()
    results: list[object] = []

    def read() -> None:
        began.set()
        results.append(stream.poll(PATIENCE, 10))

    reader = threading.Thread(target=read)
    reader.start()
    began.wait()
    stream.close()
    reader.join(PATIENCE / 2)
    assert not reader.is_alive()
    assert results == [None]


def fences_may_come_from_another_thread_than_polls(stage: Stage) -> None:
    stream = stage.opened()
    stop = threading.Event()
    batches: list[Batch] = []

    def read() -> None:
        while not stop.is_set():
            batch = stream.poll(0.2, 100)
            if batch is not None:
                batches.append(batch)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for value in range(5):
            stage.session.execute("INSERT INTO items VALUES (%s)", [value])
            fence = stream.fence()
            deadline = time.monotonic() + PATIENCE
            while not (batches and stream.reached(batches[-1].position, fence)):
                assert time.monotonic() < deadline, "the fence was not reached"
                stop.wait(0.002)
            assert value in _ids(list(batches))
    finally:
        stop.set()
        reader.join()


CONTRACT: tuple[Callable[[Stage], None], ...] = (
    every_kind_of_change_dirties_its_key,
    a_changed_key_dirties_both,
    origins_are_top_level_transactions_that_committed,
    the_last_of_several_transactions_is_a_keys_origin,
    a_truncation_comes_in_its_place,
    a_rolled_back_transaction_changes_nothing_settled,
    a_fence_is_reached_though_nobody_writes,
    a_batch_keeps_to_its_limit,
    what_was_not_confirmed_comes_again,
    what_was_confirmed_does_not_come_again,
    a_stored_position_is_enough_without_confirmation,
    preparing_twice_keeps_the_stream,
    dropping_is_complete_and_may_be_repeated,
    a_stream_that_was_made_anew_is_a_gap,
    nothing_to_poll_is_none,
    lag_falls_when_the_position_is_confirmed,
    closing_ends_a_poll_in_another_thread,
    fences_may_come_from_another_thread_than_polls,
)
