"""``restructure receipt``: what each swap of a job took, and what it carried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from restructure.cli import words
from restructure.cli.invocation import invocation
from restructure.cli.status import JobArgument
from restructure.errors import UsageError
from restructure.phases.receipt import receipts

_SHOWN_RANGES = 1000
"""Checksums that the Markdown lists; the JSON has all of them."""


def receipt(
    context: typer.Context,
    job: JobArgument,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Write it there: Markdown, or JSON where the name ends in .json."
        ),
    ] = None,
) -> None:
    """Show the receipt of each cutover and revert, as Markdown.

    How long each phase took, lock attempts, how long the lock was held and who waited behind it,
    rows and checksums of the verification, and everything that the swap carried. It stays in the
    catalog after the job has ended. Changes nothing.
    """
    call = invocation(context)
    with call.session() as connection:
        found = receipts(connection, call.job(connection, job).id)
    if not found:
        raise UsageError(
            f"job {job} has no receipt: it has not swapped yet",
            hint=f"restructure cutover {job} swaps the tables.",
        )
    if file is not None:
        text = (
            json.dumps(found, indent=2, ensure_ascii=False)
            if file.suffix == ".json"
            else "\n".join(markdown(found))
        )
        try:
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"cannot write {file}: {error.strerror}", hint="Choose another place for --file."
            ) from error
        call.output.note(f"Wrote {file}.")
        return
    call.output.result("receipt", {"receipts": found}, lambda: markdown(found))


def markdown(found: list[dict[str, Any]]) -> Iterator[str]:
    """All receipts of one job as a document, the oldest first."""
    yield f"# {found[0]['job']}: {found[0]['table']}"
    for document in found:
        yield ""
        yield from _one(document)


def _one(document: dict[str, Any]) -> Iterator[str]:
    queue = document["queue"]
    yield f"## {str(document['swap']).capitalize()} at {document['at']}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| lock held | {document['lock_held_ms']} ms |"
    yield f"| waited for the lock | {document['lock_wait_ms']} ms |"
    yield f"| attempts | {document['attempts']} |"
    yield f"| sessions that waited behind it | {queue['sessions']} |"
    yield f"| longest of these waits, when last seen | {queue['longest_wait_ms']} ms |"
    yield f"| keys merged under the lock | {document['last_keys']:,} |"
    yield f"| restructure | {document['version']} |"
    yield f"| PostgreSQL | {_version(document['server_version'])} |"
    yield ""
    yield "| phase | began | took |"
    yield "|---|---|---|"
    for phase in document["phases"]:
        yield f"| {phase['phase']} | {phase['began']} | {words.duration(phase['seconds'])} |"
    yield ""
    yield from _verified(document.get("verification"))
    yield "### Carried"
    yield ""
    for thing in document["carried"]:
        yield f"- {thing}"


def _verified(verification: dict[str, Any] | None) -> Iterator[str]:
    yield "### Verified"
    yield ""
    if verification is None:
        yield "Not verified."
        yield ""
        return
    ranges = verification["ranges"]
    rows = sum(each["rows"] for each in ranges)
    yield f"{rows:,} rows in {len(ranges):,} ranges, all known to be equal at {verification['equal_since']}."
    yield ""
    yield "| from | rows | checksum |"
    yield "|---|---|---|"
    for each in ranges[:_SHOWN_RANGES]:
        low = "the lowest key" if each["low"] is None else each["low"]
        yield f"| {low} | {each['rows']:,} | {each['checksum']} |"
    if len(ranges) > _SHOWN_RANGES:
        yield f"| … and {len(ranges) - _SHOWN_RANGES:,} more, in the JSON | | |"
    yield ""


def _version(number: int) -> str:
    return f"{number // 10000}.{number % 10000}"
