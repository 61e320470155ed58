"""pgbench, as people know it, while its largest table is given a new shape."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.model.phase import Phase
from tests.pipeline.shapes import JOB, RETIRED, count
from tests.pipeline.tool import Tool

CLIENTS = 8

LARGE = pytest.mark.skipif(
    not os.environ.get("RESTRUCTURE_LARGE"), reason="takes minutes: set RESTRUCTURE_LARGE=1"
)

PLAN = f"""
name: {JOB}
table: pgbench_accounts
alter:
  - ALTER COLUMN aid TYPE bigint
  - ALTER COLUMN filler TYPE text
  - ADD COLUMN in_debt boolean NOT NULL
columns:
  filler: rtrim(filler)
  in_debt: abalance < 0
"""

SUMS = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history)
"""

WRONG = f"""
SELECT count(*)
FROM pgbench_accounts a
FULL JOIN {RETIRED}.pgbench_accounts o USING (aid)
LEFT JOIN (SELECT aid, sum(delta) AS delta FROM pgbench_history GROUP BY aid) h USING (aid)
WHERE a.aid IS NULL OR o.aid IS NULL OR a.bid <> o.bid OR a.abalance <> coalesce(h.delta, 0)
   OR a.filler <> rtrim(o.filler) OR a.in_debt <> (o.abalance < 0)
"""
"""Rows that are not what they must be. No client writes the new column, so that it stays
what it was at the swap, when the retired table was written last."""

HISTORY = "SELECT count(*) FROM pgbench_history"
CLIENTS_LEFT = """
SELECT count(*) FROM pg_stat_activity
WHERE application_name = 'pgbench' AND datname = current_database()
"""


@pytest.mark.parametrize("protocol", ["simple", "prepared"])
@pytest.mark.parametrize("scale", [2, pytest.param(20, marks=LARGE)])
def test_pgbench_runs_on_while_its_accounts_are_restructured(
    database: str,
    connection: psycopg.Connection,
    server: Server,
    tmp_path: Path,
    scale: int,
    protocol: str,
) -> None:
    """No client fails, and the four sums that every transaction keeps equal are equal."""
    pgbench = str(server.bin / "pgbench")
    initialise = [pgbench, "--initialize", "--quiet", f"--scale={scale}", database]
    subprocess.run(initialise, check=True, capture_output=True)
    report = tmp_path / "report"
    command = [
        *(pgbench, "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", "--time=3600"),
        *("--rate=300", "--progress=1", f"--protocol={protocol}", database),
    ]
    with (
        report.open("w") as written,
        subprocess.Popen(command, stdout=written, stderr=written) as load,
    ):
        try:
            with Tool(database, PLAN) as tool:
                job = tool.finish(patience=900)
            done = count(connection, HISTORY)
            while load.poll() is None and count(connection, HISTORY) < done + 100:
                time.sleep(0.05)
            assert load.poll() is None, report.read_text()
        finally:
            load.terminate()
    assert job.phase == Phase.LIVE
    said = report.read_text()
    assert not re.search(r"aborted|error|[1-9]\d* failed", said), said
    while count(connection, CLIENTS_LEFT):
        time.sleep(0.05)
    sums = connection.execute(SUMS).fetchone()
    assert sums is not None
    assert len(set(sums)) == 1, sums
    assert count(connection, WRONG) == 0
    assert count(connection, "SELECT count(*) FROM pgbench_accounts") == scale * 100_000
