"""How far a job has come, as status and the progress bar show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Progress:
    """Counts, sizes in bytes and times in seconds. None where nobody knows (yet).

    ``eta_seconds``: until the copy is done or, later, until lag is zero; infinity is
    never stored: ``forecast`` then says "never at this rate".
    """

    rows_copied: int = 0
    rows_expected: int = 0
    blocks_copied: int = 0
    blocks_total: int = 0
    indexes_built: int = 0
    indexes_total: int = 0
    captured_keys: int = 0
    applied_keys: int = 0
    pending_keys: int = 0
    quarantined_keys: int = 0
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    slot_retained_bytes: int | None = None
    throttled: str | None = None
    eta_seconds: float | None = None
    forecast: str | None = None
    cutover_attempts: int = 0
    blocked_by: str | None = None
    verified_share: float | None = None  # of the verification under way, between 0 and 1
    verified_rows: int = 0
    verify_eta_seconds: float | None = None
    verify_mismatches: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def copied_share(self) -> float:
        """Between 0 and 1; an empty table counts as copied."""
        return self.blocks_copied / self.blocks_total if self.blocks_total else 1.0
