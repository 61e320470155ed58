"""``python -m benchmarks``: run them, print one table, keep everything as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import backlog, decoding, idle, never, repack, reverse, under_load, verify
from benchmarks.machine import describe_machine, describe_server
from benchmarks.place import Place, open_place
from benchmarks.results import Outcome, print_outcomes
from benchmarks.sizes import Sizes
from restructure.demo.binaries import find_binaries
from restructure.errors import RestructureError

BENCHMARKS: Mapping[str, Callable[[Place, Sizes], Outcome]] = {
    "idle": idle.run,
    "under_load": under_load.run,
    "backlog": backlog.run,
    "never": never.run,
    "decoding": decoding.run,
    "repack": repack.run,
    "verify": verify.run,
    "reverse": reverse.run,
}


def main() -> int:
    """Exit code 1 where a goal was missed or a benchmark failed, 2 for wrong words."""
    words = _parser().parse_args()
    sizes = Sizes(words.rows, words.changes, words.rounds, words.waits)
    chosen = words.only or list(BENCHMARKS)
    console = Console(width=None if sys.stdout.isatty() else 120)
    log = Console(stderr=True)
    outcomes: list[Outcome] = []
    report: dict[str, Any] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "rows": sizes.rows,
        "changes": sizes.changes,
        "servers": {},
    }
    try:
        for version in _versions(words.pg):
            log.print(f"PostgreSQL {version}: filling {sizes.rows:,} rows")
            with open_place(version, sizes.rows) as place:
                report["servers"][version] = describe_server(place)
                for name in chosen:
                    began = time.monotonic()
                    try:
                        outcomes.append(BENCHMARKS[name](place, sizes))
                    except Exception as error:  # the others are worth having all the same
                        log.print_exception()
                        outcomes.append(Outcome(name, version, failed=type(error).__name__))
                    spent = time.monotonic() - began
                    log.print(f"PostgreSQL {version}: {name} took {spent:.0f} s")
    finally:
        report["benchmarks"] = [outcome.as_json() for outcome in outcomes]
        words.json.write_text(json.dumps(report, indent=1, default=str) + "\n")
        print_outcomes(outcomes, console)
        log.print(f"raw samples: {words.json}")
    missed = any(line.met is False for outcome in outcomes for line in outcome.lines)
    return 1 if missed or any(outcome.failed for outcome in outcomes) else 0


def _versions(wanted: str) -> list[int]:
    """Those of the wanted versions that are here. Raises RestructureError where none is."""
    found = find_binaries()
    versions = [int(word) for word in wanted.split(",") if int(word) in found]
    if not versions:
        raise RestructureError(
            f"no programs of PostgreSQL {wanted} on this machine",
            hint=f"Found: {', '.join(map(str, found)) or 'none'}.",
        )
    return versions


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be repeated")
    parser.add_argument("--rows", type=int, default=Sizes().rows, help="of the table (%(default)s)")
    parser.add_argument(
        "--changes", type=int, default=Sizes().changes, help="of each backlog (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, help="of each benchmark, instead of its own number")
    parser.add_argument("--pg", default="18,15", help="major versions (%(default)s)")
    parser.add_argument(
        "--waits",
        action="store_true",
        help="sample our sessions' wait events too, which costs a little time",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmarks.json"),
        metavar="FILE",
        help="where raw samples go (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
