"""The demo: a live table restructured under writing clients, and the proof that nothing was lost.

It runs the same commands that a user types, in processes of their own, so that what is shown
is what the tool does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from restructure.demo.server import Server
from restructure.demo.writers import CREATE, SEED_ROWS, Writers
from restructure.postgres.connect import Connection, connect

JOB = "orders-bigint"
WRITES_PER_SECOND = 400

PLAN = f"""\
name: {JOB}
table: public.orders
alter:
  - ALTER COLUMN id TYPE bigint                       # the key that is running out
  - ADD COLUMN amount_cents bigint GENERATED ALWAYS AS ((amount * 100)::bigint) STORED
  - ADD COLUMN region text NOT NULL DEFAULT 'unknown'
  - DROP COLUMN legacy_flag
columns:
  region: CASE WHEN customer % 2 = 0 THEN 'north' ELSE 'south' END
"""

_QUIET_SECONDS = 2.0


def run(out: TextIO) -> int:
    """Tell the story on ``out``; return 0 if the proof holds, 1 if not."""
    began = time.monotonic()
    _say(out, "Starting a PostgreSQL of our own (it is gone when the demo ends) …")
    with Server(18) as server, tempfile.TemporaryDirectory() as folder:
        _say(out, f"PostgreSQL {server.version}. Filling public.orders with {SEED_ROWS:,} rows …")
        with connect(server.dsn, role="demo") as connection:
            for statement in CREATE.split(";\n"):
                if statement.strip():
                    connection.execute(statement.encode())
            plan = Path(folder) / "orders.yaml"
            plan.write_text(PLAN)
            _say(out, f"\nThe plan:\n\n{_indented(PLAN)}")
            held = _act(out, server.dsn, plan, connection)
            _say(out, f"\nThe whole demo took {time.monotonic() - began:.0f} s.")
    return 0 if held else 1


def _act(out: TextIO, dsn: str, plan: Path, connection: Connection) -> bool:
    writers = Writers(dsn, per_second=WRITES_PER_SECOND)
    writers.start()
    try:
        _say(out, f"Four clients write, {WRITES_PER_SECOND} transactions a second in all …")
        time.sleep(_QUIET_SECONDS)
        before = writers.longest_wait()
        started = time.monotonic()
        for words in (
            ["check", str(plan)],
            ["run", str(plan), "--cutover", "--then", "leave"],
            ["revert", JOB, "--then", "leave"],
            ["cutover", JOB, "--then", "leave"],
        ):
            shown = [plan.name if word == str(plan) else word for word in words]
            _say(out, f"\n$ restructure {' '.join(shown)}")
            if _command(words, dsn) != 0:
                return False
            if words[0] != "check":
                _say(
                    out,
                    f"Clients go on for {_QUIET_SECONDS:.0f} s; id is {_type_of_id(connection)} now …",
                )
                time.sleep(_QUIET_SECONDS)
        during = writers.longest_wait(since=started)
    finally:
        writers.stop()
    held = ", ".join(f"{receipt['lock_held_ms']:.1f}" for receipt in _receipts(dsn))
    _say(out, "\nWhat the clients saw")
    _say(out, f"  longest wait before the job            {before * 1000:8.1f} ms")
    _say(out, f"  longest wait during it, swaps too      {during * 1000:8.1f} ms")
    _say(out, f"  table locked: cutover, revert, cutover {held} ms")
    _say(out, f"  failed transactions                    {len(writers.failures):8}")
    return _prove(out, connection, writers) and not writers.failures


def _prove(out: TextIO, connection: Connection, writers: Writers) -> bool:
    """Compare every row of the new table with what the clients remember of their own writes."""
    found: dict[int, Decimal] = dict(
        connection.execute("SELECT id, amount FROM public.orders").fetchall()
    )
    expected = writers.expected()
    missing = expected.keys() - found.keys()
    extra = found.keys() - expected.keys()
    changed = [
        number for number in expected.keys() & found.keys() if expected[number] != found[number]
    ]
    wrong = _one(
        connection,
        b"SELECT count(*) FROM public.orders WHERE amount_cents IS DISTINCT FROM (amount * 100)::bigint"
        b" OR (region <> 'unknown' AND region <> CASE WHEN customer % 2 = 0 THEN 'north' ELSE 'south' END)",
    )
    kind = _type_of_id(connection)
    _say(out, "\nThe proof")
    _say(out, f"  writes acknowledged to clients         {writers.acknowledged:8,}")
    _say(out, f"  rows expected, rows found              {len(expected):8,} {len(found):8,}")
    _say(
        out,
        f"  missing, extra, different              {len(missing):8} {len(extra):8} {len(changed):8}",
    )
    _say(out, f"  rows whose computed columns are wrong  {wrong:8}")
    _say(out, f"  type of id now                         {kind:>8}")
    held = not (missing or extra or changed or wrong) and kind == "bigint"
    _say(
        out,
        "\nNothing was lost, there and back again."
        if held
        else "\nTHE PROOF FAILED: this is a bug, please report it.",
    )
    return held


def _command(words: list[str], dsn: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "restructure", *words], env=_environment(dsn), check=False
    ).returncode


def _receipts(dsn: str) -> list[dict[str, Any]]:
    answer = subprocess.run(
        [sys.executable, "-m", "restructure", "--output", "json", "receipt", JOB],
        env=_environment(dsn),
        check=True,
        capture_output=True,
    )
    receipts: list[dict[str, Any]] = json.loads(answer.stdout)["receipts"]
    return receipts


def _type_of_id(connection: Connection) -> str:
    return str(_one(connection, b"SELECT pg_typeof(id)::text FROM public.orders LIMIT 1"))


def _environment(dsn: str) -> dict[str, str]:
    return {**os.environ, "RESTRUCTURE_DSN": dsn}


def _one(connection: Connection, query: bytes) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _say(out: TextIO, text: str) -> None:
    print(text, file=out, flush=True)
