"""The plan file as checked values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from restructure.plan.units import Duration, DurationOrZero, Size, parse_duration

STREAM_TIMES = ("slot_timeout", "sender_timeout")
"""Options of the stream that are durations in the plan and seconds for the connector."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Copy(_Section):
    """How rows are copied. ``chunk_target`` is the time one chunk should take."""

    workers: int = Field(default=2, ge=1, le=16)
    chunk_target: Duration = timedelta(milliseconds=500)


class Throttle(_Section):
    """When to slow down for production's sake. None means: do not look.

    Without ``wal_limit`` the slot is given up at three times ``wal_retained``.
    """

    replica_lag: Duration | None = None
    wal_retained: Size | None = 20 << 30  # bytes; past it the copy slows
    wal_limit: Size | None = None  # bytes; past it the job gives up its slot
    query: str | None = None  # boolean (true = hold) or a number against ``query_limit``
    query_limit: float | None = None


class Verify(_Section):
    """How rows are compared. ``chunk_target`` is the time that one range should take.

    ``share`` of the ranges is what a sample takes.
    """

    mode: Literal["full", "sample", "off"] = "full"
    workers: int = Field(default=2, ge=1, le=16)
    chunk_target: Duration = timedelta(seconds=1)
    share: float = Field(default=0.05, gt=0, le=1)


class Cutover(_Section):
    """``lock_timeout`` per try for the lock, ``lock_budget`` for holding it.

    ``revert_window``: for how long the retired table is kept in step; 0: not at all.
    """

    lock_timeout: Duration = timedelta(milliseconds=300)
    lock_budget: Duration = timedelta(seconds=1)
    attempts: int = Field(default=60, ge=1)
    terminate_blockers: bool = False
    old_snapshots: Literal["wait", "warn", "refuse"] = "wait"
    revert_window: DurationOrZero = timedelta(hours=24)


class Plan(BaseModel):
    """One job. ``alter`` and ``create`` exclude each other; one of them is given.

    Column names (in ``columns``, ``reverse`` and ``drop``) are exact, as the catalogs store
    them: unquoted and not folded to lower case. ``table`` is written as in SQL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str
    table: str
    alter: tuple[str, ...] = ()
    create: str | None = None
    columns: dict[str, str] = {}
    reverse: dict[str, str] = {}
    drop: tuple[str, ...] = ()
    where: str | None = None
    stream: dict[str, Any] = {"kind": "pgoutput"}
    # named ``copy_`` because BaseModel has a method ``copy``; the file says ``copy``
    copy_: Copy = Field(default=Copy(), alias="copy")
    throttle: Throttle = Throttle()
    verify: Verify = Verify()
    cutover: Cutover = Cutover()

    @field_validator("stream")
    @classmethod
    def _in_seconds(cls, stream: dict[str, Any]) -> dict[str, Any]:
        return {
            name: parse_duration(value).total_seconds()
            if name in STREAM_TIMES and isinstance(value, str)
            else value
            for name, value in stream.items()
        }

    def to_json(self) -> dict[str, Any]:
        """The plan for the catalog, defaults included: a later version may have others."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Plan:
        """Read back what :meth:`to_json` made."""
        return cls.model_validate(stored)
