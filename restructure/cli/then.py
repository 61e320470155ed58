"""What follows after the swap: the option ``--then`` of run, cutover and revert."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Then(StrEnum):
    """What follows when the job is ready, or has swapped."""

    STAY = "stay"
    LEAVE = "leave"
    FINALIZE = "finalize"


ThenOption = Annotated[
    Then,
    typer.Option(
        help="After the swap: stay keeps the other table in step until told otherwise (revert, "
        "finalize, Ctrl-C, the plan's revert_window); leave ends at once, and the server keeps WAL "
        "until somebody attends the job again; finalize gives up the way back and drops the old "
        "table."
    ),
]

ThenAfterRevertOption = Annotated[
    Then,
    typer.Option(
        metavar="<stay|leave>",
        help="After the swap: stay keeps the new table in step, so that the job can cut over again, "
        "until told otherwise (cutover, abort, Ctrl-C); leave ends at once, and the server keeps WAL "
        "until somebody attends the job again or aborts it.",
    ),
]
