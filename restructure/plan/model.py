"""The plan file as checked values."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Copy(_Section):
    """How rows are copied. ``chunk_target`` is the time one chunk should take."""

    workers: int = Field(default=2, ge=1, le=16)
    chunk_target: timedelta = timedelta(milliseconds=500)


class Throttle(_Section):
    """When to slow down for production's sake. None means: do not look."""

    replica_lag: timedelta | None = None
    wal_retained: int | None = None  # bytes; past it the copy slows
    wal_limit: int | None = None  # bytes; past it the job gives up its slot
    query: str | None = None  # boolean (true = hold) or a number against ``query_limit``
    query_limit: float | None = None


class Verify(_Section):
    mode: Literal["full", "sample", "off"] = "full"


class Cutover(_Section):
    """``lock_timeout`` per try for the lock, ``lock_budget`` for holding it."""

    lock_timeout: timedelta = timedelta(milliseconds=300)
    lock_budget: timedelta = timedelta(seconds=1)
    attempts: int = Field(default=60, ge=1)
    terminate_blockers: bool = False
    old_snapshots: Literal["wait", "warn", "refuse"] = "wait"


class Plan(BaseModel):
    """One job. ``alter`` and ``create`` exclude each other; one of them is given."""

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
