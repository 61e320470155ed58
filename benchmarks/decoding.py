"""Keys out of a slot: our reader against pg_recvlogical, which throws away what it gets."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from typing import Any

import psycopg

from benchmarks import orders
from benchmarks.backlog import CHANGES, KINDS, wait_until_free
from benchmarks.place import Place, environment
from benchmarks.results import Goal, Line, Outcome, side_by_side
from benchmarks.sizes import Sizes
from connectors.pgoutput import PgoutputStream, open_stream
from restructure.engine.sides import watched
from restructure.model.names import Names
from restructure.model.relation import Watched
from restructure.shape.table import read_table

_COPY = "bench_decoding"
_OPTIONS: dict[str, Any] = {"kind": "pgoutput"}


def run(place: Place, sizes: Sizes) -> Outcome:
    """Both read copies of one slot, with the same publication and the same options."""
    names = Names.of("decoding")
    lines: list[Line] = []
    samples: dict[str, Any] = {"changes": sizes.changes}
    with (
        place.copy("decoding") as dsn,
        psycopg.connect(dsn, autocommit=True) as session,
    ):
        session.execute(CHANGES)
        session.execute("SET synchronous_commit = off")
        follow = watched(read_table(session, orders.TABLE))
        for kind in KINDS:
            stream = open_stream(dsn, names, _OPTIONS)
            start = stream.prepare(follow)
            keys = min(kind.keys or place.rows, place.rows)
            session.execute(
                "CALL change(%s, %s, %s)",
                (sizes.changes, kind.per_transaction or sizes.changes + 1, keys),
            )
            pairs = _pairs(place, session, names, follow, start, sizes)
            stream.drop()
            speeds = [(sizes.changes / a, sizes.changes / b) for a, b in pairs]
            lines.append(
                side_by_side(f"decoding: {kind.name}", "changes/s", speeds, Goal("at least", 0.6))
            )
            samples[kind.name] = {"ours_s": [a for a, _ in pairs], "recv_s": [b for _, b in pairs]}
    return Outcome("decoding", place.version, lines, samples)


def _pairs(
    place: Place,
    session: psycopg.Connection,
    names: Names,
    follow: Watched,
    start: str,
    sizes: Sizes,
) -> list[tuple[float, float]]:
    copied = dataclasses.replace(names, slot=_COPY)
    dsn = place.dsn("decoding")
    row = session.execute("SELECT pg_logical_emit_message(true, 'bench', '')::text").fetchone()
    assert row is not None
    pairs = []
    for number in range(sizes.rounds or 3):
        sides: dict[str, float] = {}
        for side in ("ours", "recv") if number % 2 == 0 else ("recv", "ours"):
            session.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", (names.slot, _COPY))
            place.checkpoint()
            if side == "ours":
                sides[side] = _ours(open_stream(dsn, copied, _OPTIONS), follow, start, sizes)
            else:
                sides[side] = _recvlogical(place, names, row[0])
            wait_until_free(session, _COPY)
            session.execute("SELECT pg_drop_replication_slot(%s)", (_COPY,))
        pairs.append((sides["ours"], sides["recv"]))
    return pairs


def _ours(stream: PgoutputStream, follow: Watched, start: str, sizes: Sizes) -> float:
    """Until a fence set before the start is reached. Batches are dropped, and never confirmed."""
    began = time.monotonic()
    stream.open(follow, start)
    fence = stream.fence()
    position = start
    while not stream.reached(position, fence):
        batch = stream.poll(1.0, 20_000)
        if batch is not None:
            position = batch.position
    took = time.monotonic() - began
    stream.close()
    return took


def _recvlogical(place: Place, names: Names, end: str) -> float:
    options = {
        "proto_version": "2",
        "publication_names": names.publication,
        "binary": "true",
        "messages": "true",
        "streaming": "on",
    }
    command = [str(place.program("pg_recvlogical")), "--start", "--no-loop", "--file=/dev/null"]
    command += ["-d", "decoding", "--slot", _COPY, "--endpos", end]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    began = time.monotonic()
    subprocess.run(command, env=environment(place.dsn("decoding")), check=True)
    return time.monotonic() - began
