"""What pg_dump says of a database's schemas, entry by entry, for a comparison of before and after."""

from __future__ import annotations

import re
import subprocess

from restructure.demo.server import Server

Entries = dict[str, str]

_OUR_PUBLICATION = re.compile(r"Name: (PUBLICATION )?restructure_.*; Type: (PUBLICATION|COMMENT)")


def entries(server: Server, database: str) -> Entries:
    """``pg_dump --schema-only`` of everything but what is ours: each entry's text by its head.

    Entries that the dump numbers or orders by what was made first come out the same.
    """
    done = subprocess.run(
        [server.bin / "pg_dump", "--schema-only", "--exclude-schema=restructure*", database],
        check=True,
        capture_output=True,
        text=True,
    )
    parts = re.split(r"^--\n-- (Name: .*)\n--\n", done.stdout, flags=re.MULTILINE)
    found: Entries = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        if _OUR_PUBLICATION.match(name):
            continue
        lines = [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]
        if "; Type: ACL;" in name:  # in the order in which they were granted
            lines.sort()
        found[name] = "\n".join(line for line in lines if not line.startswith("SET default_table"))
    return found


def of_type(found: Entries, *types: str) -> Entries:
    """Only the entries of these types, as pg_dump calls them."""
    return {name: text for name, text in found.items() if type_of(name) in types}


def type_of(name: str) -> str:
    return name.partition("; Type: ")[2].partition(";")[0]


def assert_same(before: Entries, after: Entries) -> None:
    """Fail with the entries that are not the same."""
    wrong = [
        f"--- {name}\n{before.get(name)}\n+++\n{after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    assert not wrong, "\n".join(wrong)
