"""The decoder and the assembly, fed with messages encoded by hand. No server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restructure.errors import OperatorNeeded, SchemaDrift
from restructure.model.change import Origin
from restructure.model.relation import KeyColumn, Relation, Watched
from restructure.postgres.assembly import Assembly, ReplayWhole
from restructure.postgres.pgoutput import (
    Begin,
    Commit,
    Decoder,
    Ignored,
    StreamAbort,
    StreamCommit,
    StreamStart,
    StreamStop,
    Truncate,
)

OID = 16_500
INT = 23
Field = bytes | str
"""A value's binary form, or the kind of a column without one: n, u, or t (then of length 1)."""

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
moments = st.integers(-(2**63), 2**63 - 1)


def watched(*names: str) -> Watched:
    return Watched(
        (Relation(OID, "public", "t"),), tuple(KeyColumn(n, INT, "integer", None) for n in names)
    )


def relation(
    columns: Sequence[str], oid: int = OID, xid: bytes = b"", type_oid: int = INT
) -> bytes:
    body = b"".join(b"\1" + name.encode() + b"\0" + pack(">Ii", type_oid, -1) for name in columns)
    return b"R" + xid + pack(">I", oid) + b"public\0t\0d" + pack(">H", len(columns)) + body


def row(fields: Sequence[Field]) -> bytes:
    return pack(">H", len(fields)) + b"".join(map(encoded, fields))


def encoded(field: Field) -> bytes:
    if isinstance(field, bytes):
        return b"b" + copied(field)
    return b"t" + copied(b"x") if field == "t" else field.encode()


def copied(value: bytes) -> bytes:
    """A field as COPY BINARY writes it."""
    return pack(">i", len(value)) + value


def insert(fields: Sequence[Field], oid: int = OID, xid: bytes = b"") -> bytes:
    return b"I" + xid + pack(">I", oid) + b"N" + row(fields)


def update(
    new: Sequence[Field], old: Sequence[Field] | None = None, part: bytes = b"K", xid: bytes = b""
) -> bytes:
    before = part + row(old) if old is not None else b""
    return b"U" + xid + pack(">I", OID) + before + b"N" + row(new)


def delete(old: Sequence[Field], part: bytes = b"K", xid: bytes = b"") -> bytes:
    return b"D" + xid + pack(">I", OID) + part + row(old)


def begin(commit_lsn: int, xid: int = 700, committed: int = 1) -> bytes:
    return b"B" + pack(">QqI", commit_lsn, committed, xid)


def commit(end_lsn: int, committed: int = 1) -> bytes:
    return b"C" + pack(">BQQq", 0, end_lsn - 8, end_lsn, committed)


def stream_start(xid: int, first: bool = True) -> bytes:
    return b"S" + pack(">IB", xid, first)


def stream_commit(xid: int, end_lsn: int) -> bytes:
    return b"c" + pack(">IBQQq", xid, 0, end_lsn - 8, end_lsn, 1)


def stream_abort(xid: int, subxid: int) -> bytes:
    return b"A" + pack(">II", xid, subxid)


def truncate(*oids: int, xid: bytes = b"") -> bytes:
    return b"T" + xid + pack(">IB", len(oids), 0) + b"".join(pack(">I", oid) for oid in oids)


def ready(columns: Sequence[str] = ("id",), key: Sequence[str] = ("id",)) -> Decoder:
    decoder = Decoder(watched(*key))
    decoder.decode(relation(columns))
    return decoder


@given(u64, u64, moments, u32)
def test_transactions_read_back_as_written(first: int, last: int, moment: int, xid: int) -> None:
    decoder = ready()
    assert decoder.decode(begin(first, xid, moment)) == Begin(first, moment, xid)
    message = b"C" + pack(">BQQq", 0, first, last, moment)
    assert decoder.decode(message) == Commit(first, last, moment)
    message = b"c" + pack(">IBQQq", xid, 0, first, last, moment)
    assert decoder.decode(message) == StreamCommit(xid, first, last, moment)


@given(u32, u32, st.lists(u32), st.booleans())
def test_stretches_prefix_their_messages_with_a_transaction(
    xid: int, subxid: int, oids: list[int], first: bool
) -> None:
    decoder = ready()
    assert decoder.decode(truncate(*oids)) == Truncate(0, tuple(oids))
    assert decoder.decode(stream_start(xid, first)) == StreamStart(xid, first)
    prefix = pack(">I", subxid)
    assert decoder.decode(truncate(*oids, xid=prefix)) == Truncate(subxid, tuple(oids))
    assert decoder.decode(insert([b"1234"], xid=prefix)) == [copied(b"1234")]
    assert decoder.decode(b"Y" + prefix + b"whatever") == Ignored("Y")
    assert decoder.decode(b"M" + prefix + b"whatever") == Ignored("M")
    assert decoder.decode(relation(["id"], xid=prefix)) == Ignored("R")
    assert decoder.decode(b"E") == StreamStop()
    assert decoder.decode(stream_abort(xid, subxid)) == StreamAbort(xid, subxid)
    assert decoder.decode(insert([b"5678"])) == [copied(b"5678")]


@dataclass(frozen=True)
class Shape:
    """A relation's published columns, which of them are the key, and two rows of it."""

    columns: list[str]
    key: list[str]
    old: list[bytes]
    new: list[bytes]

    def expect(self, row: list[bytes]) -> bytes:
        return b"".join(copied(row[self.columns.index(name)]) for name in self.key)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    columns = draw(st.lists(st.text("abcé", min_size=1), min_size=1, max_size=5, unique=True))
    key = draw(st.lists(st.sampled_from(columns), min_size=1, unique=True))
    rows = st.lists(st.binary(max_size=300), min_size=len(columns), max_size=len(columns))
    return Shape(columns, key, draw(rows), draw(rows))


@given(shapes(), st.sampled_from([b"K", b"O"]))
def test_keys_are_cut_out_whatever_the_columns(shape: Shape, part: bytes) -> None:
    decoder = ready(shape.columns, shape.key)
    old, new = shape.expect(shape.old), shape.expect(shape.new)
    assert decoder.decode(insert(shape.new)) == [new]
    assert decoder.decode(update(shape.new)) == [new]
    assert decoder.decode(delete(shape.old, part)) == [old]
    both = [new] if old == new else [old, new]
    assert decoder.decode(update(shape.new, shape.old, part)) == both


@given(shapes(), st.data())
def test_an_unchanged_key_column_comes_from_the_old_part(shape: Shape, data: st.DataObject) -> None:
    unchanged = data.draw(st.sets(st.sampled_from(range(len(shape.columns)))))
    sent: list[Field] = ["u" if i in unchanged else v for i, v in enumerate(shape.new)]
    full = [shape.old[i] if i in unchanged else v for i, v in enumerate(shape.new)]
    keys = ready(shape.columns, shape.key).decode(update(sent, shape.old))
    assert isinstance(keys, list)
    assert keys[-1] == shape.expect(full)


@given(st.binary(min_size=1))
def test_any_message_is_an_event_or_an_error_with_advice(message: bytes) -> None:
    try:
        ready().decode(message)
    except OperatorNeeded as error:
        assert error.hint


@pytest.mark.parametrize("kind", "bPKrp?")
def test_an_unknown_kind_of_message_stops_the_stream(kind: str) -> None:
    with pytest.raises(OperatorNeeded) as refused:
        ready().decode(kind.encode() + b"\0" * 40)
    assert f"unknown kind of message: '{kind}'" in refused.value.message


def test_an_unknown_kind_of_column_stops_the_stream() -> None:
    with pytest.raises(OperatorNeeded, match="unknown kind of column: 'z'"):
        ready().decode(insert(["z"]))


def test_an_unknown_part_of_a_row_stops_the_stream() -> None:
    message = b"I" + pack(">I", OID) + b"Z" + row([b"1234"])
    with pytest.raises(OperatorNeeded, match="unknown part: 'Z'"):
        ready(["id", "b"]).decode(message)


@pytest.mark.parametrize(
    ("kind", "manner"), [("n", "as null"), ("t", "as text"), ("u", "without its value")]
)
@pytest.mark.parametrize("columns", [["id"], ["id", "b"]])
def test_a_key_that_cannot_be_read_stops_the_stream(
    kind: str, manner: str, columns: list[str]
) -> None:
    fields: list[Field] = [kind, *([b"other"] * (len(columns) - 1))]
    with pytest.raises(OperatorNeeded, match=f"key column id of public.t arrived {manner}"):
        ready(columns).decode(insert(fields))


def test_columns_beside_the_key_may_arrive_in_any_manner() -> None:
    decoder = ready(["a", "id", "b", "c"])
    assert decoder.decode(insert(["t", b"1234", "n", "u"])) == [copied(b"1234")]


def test_rows_of_other_relations_are_passed_over() -> None:
    decoder = ready()
    decoder.decode(relation(["x"], oid=99))
    assert decoder.decode(insert([b"1234"], oid=99)) == []


def test_a_row_before_its_relation_stops_the_stream() -> None:
    with pytest.raises(OperatorNeeded, match="without describing it"):
        Decoder(watched("id")).decode(insert([b"1234"]))


def test_a_key_column_that_is_gone_or_has_another_type_is_drift() -> None:
    decoder = ready()
    with pytest.raises(SchemaDrift, match="key column id of public\\.t is no longer"):
        decoder.decode(relation(["renamed"]))
    with pytest.raises(SchemaDrift, match="another type"):
        decoder.decode(relation(["id"], type_oid=20))


# -- transactions put together


def assembly(position: int = 1000, next_xid: int = 800) -> Assembly:
    made = Assembly(watched("id"), position)
    made.restart(next_xid)
    made.feed(relation(["id"]))
    return made


def feed(made: Assembly, *messages: bytes) -> None:
    for message in messages:
        made.feed(message)


def key(value: int) -> bytes:
    return copied(pack(">i", value))


def change(value: int, xid: bytes = b"") -> bytes:
    return insert([pack(">i", value)], xid=xid)


def test_the_position_moves_at_the_end_of_a_transaction() -> None:
    made = assembly()
    feed(made, begin(1992), change(1))
    assert (made.position, made.in_transaction) == (1000, True)
    made.heard(5000)
    assert made.position == 1000
    feed(made, commit(2000))
    assert (made.position, made.in_transaction) == (2000, False)
    made.heard(5000)
    assert made.position == 5000
    made.heard(4000)
    assert made.position == 5000


def test_keys_of_one_transaction_share_their_origin_and_the_last_one_wins() -> None:
    made = assembly()
    feed(made, begin(1992, 701, 5), change(1), change(2), commit(2000, 5))
    feed(made, begin(2992, 702, 6), change(2), change(2), commit(3000, 6))
    batch = made.cut("p")
    (segment,) = batch.segments
    assert segment.keys == {key(1): Origin(701, 5), key(2): Origin(702, 6)}
    assert (batch.position, batch.committed) == ("p", 6)
    assert made.cut("q").empty


def test_a_transaction_that_was_delivered_is_dropped_with_its_truncations() -> None:
    made = assembly(position=2000)
    feed(made, begin(1992), change(1), truncate(OID), commit(2000))
    assert made.cut("p").empty
    feed(made, begin(2000), change(2), commit(2040))
    assert made.cut("p").key_count == 1


def test_a_truncation_begins_a_new_segment() -> None:
    made = assembly()
    feed(made, begin(1992), change(1), truncate(99, OID), truncate(OID), change(2))
    feed(made, truncate(99), change(3), truncate(OID), commit(2000))
    assert made.pending == 6
    segments = made.cut("p").segments
    assert [list(s.keys) for s in segments] == [[key(1)], [key(2), key(3)], []]
    assert [[t.relation for t in s.truncations] for s in segments] == [[], [OID, OID], [OID]]


def test_streamed_keys_come_early_and_do_not_move_the_position() -> None:
    made = assembly()
    sub = pack(">I", 901)
    feed(made, stream_start(900), relation(["id"], xid=sub), change(1, sub), b"E")
    batch = made.cut("p")
    assert batch.segments[0].keys == {key(1): Origin(900, None)}
    assert (made.position, made.owed) == (1000, False)
    feed(made, stream_commit(900, 3000))
    assert (made.position, made.owed) == (3000, True)
    assert made.cut("q").empty
    assert not made.owed


def test_between_stretches_other_transactions_go_on() -> None:
    made = assembly()
    sub = pack(">I", 900)
    feed(made, stream_start(900), change(1, sub), b"E")
    feed(made, begin(1992, 701), change(2), commit(2000))
    feed(made, stream_start(900, False), change(3, sub), b"E", stream_abort(900, 900))
    assert made.position == 2000
    keys = made.cut("p").segments[0].keys
    assert keys[key(2)] == Origin(701, 1)
    assert keys[key(3)] == Origin(900, None)


def test_a_streamed_truncation_asks_for_the_whole_transaction() -> None:
    made = assembly()
    sub = pack(">I", 900)
    feed(made, stream_start(900), truncate(OID, xid=sub), change(1, sub), b"E")
    with pytest.raises(ReplayWhole) as asked:
        made.feed(stream_commit(900, 3000))
    assert asked.value.end_lsn == 3000
    assert made.position == 1000
    made.restart(1000)
    feed(made, relation(["id"]), begin(2992, 900), truncate(OID), change(1), commit(3000))
    segments = made.cut("p").segments
    assert [len(segment.truncations) for segment in segments] == [0, 1]
    assert segments[1].keys == {key(1): Origin(900, 1)}
    assert made.position == 3000


def test_a_truncation_that_was_rolled_back_is_none() -> None:
    made = assembly()
    feed(made, stream_start(900), truncate(OID, xid=pack(">I", 901)), b"E")
    feed(made, stream_abort(900, 901), stream_commit(900, 3000))
    assert made.position == 3000
    assert made.cut("p").empty


def test_a_transaction_that_was_cut_short_comes_again() -> None:
    made = assembly()
    feed(made, begin(1992, 701), change(1))
    made.restart(800)
    feed(made, relation(["id"]), begin(1992, 701), change(1), change(2), commit(2000))
    assert set(made.cut("p").segments[0].keys) == {key(1), key(2)}


@given(st.integers(3, 2**50), st.integers(-(2**31) + 1, 2**31 - 1))
def test_transaction_ids_are_completed_to_the_nearest(near: int, away: int) -> None:
    xid = near + away
    if xid < 3:
        return
    made = assembly(next_xid=near)
    feed(made, begin(1992, xid % 2**32), change(1), commit(2000))
    assert made.cut("p").segments[0].keys[key(1)].xid == xid


def test_transaction_ids_go_on_over_many_wraparounds() -> None:
    made = assembly(next_xid=1000)
    for step in range(1, 20):
        xid = 1000 + step * 1_500_000_000
        feed(made, begin(1000 + step * 100, xid % 2**32), change(1), commit(1050 + step * 100))
        assert made.cut("p").segments[0].keys[key(1)].xid == xid


def test_memory_stays_flat_however_large_a_transaction_is() -> None:
    made = assembly()
    feed(made, begin(1992))
    for value in range(50_000):
        made.feed(change(value))
        if made.pending >= 1000:
            assert made.cut("p").key_count == 1000
    assert made.pending == 0
