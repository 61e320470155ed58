"""How large and how often: what the command line may change."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """``rounds`` None: as many as each benchmark finds enough. ``waits``: sample wait events too."""

    rows: int = 3_000_000
    changes: int = 500_000
    rounds: int | None = None
    waits: bool = False
