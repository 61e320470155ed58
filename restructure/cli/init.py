"""``restructure init``: a starter plan from a live table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restructure.cli.invocation import invocation
from restructure.errors import UsageError
from restructure.shape.starter import starter_plan
from restructure.shape.table import read_table


def init(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="The table, as in SQL: schema.table.")],
    alter: Annotated[
        list[str] | None,
        typer.Option(
            help="A clause of ALTER TABLE; repeat it for more. "
            'As in --alter "ALTER COLUMN id TYPE bigint".'
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Write the plan there instead of to stdout.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file if it exists.")
    ] = False,
) -> None:
    """Write a starter plan for a live table, to be edited and checked.

    Changes nothing in the database. Undo: delete the file.
    """
    call = invocation(context)
    with call.session() as connection:
        text = starter_plan(connection, read_table(connection, table), alter or [])
    if file is None:
        call.output.result("init", {"table": table, "plan": text}, text.rstrip("\n").splitlines)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise UsageError(
            f"{file} exists already", hint="Another --file, or --force to overwrite it."
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or 'not writable'}") from None
    call.output.result(
        "init",
        {"table": table, "file": str(file)},
        lambda: [f"{file} written.", f"Next: restructure check {file}"],
    )
