"""Durations and sizes as the plan file writes them: a number and a unit, never a bare number."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationInfo

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=366)

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB|TB)", re.IGNORECASE)
_BYTES = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}


def parse_duration(text: str) -> timedelta:
    """Read ``500ms``, ``10s``, ``5m``, ``24h`` or ``7d``. Raises ValueError on anything else."""
    found = _DURATION.fullmatch(text.strip())
    if not found:
        raise ValueError("a duration is a number and a unit: 500ms, 10s, 5m, 24h, 7d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"a duration may be {_LONGEST.days} days at most")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """The shortest text that :func:`parse_duration` reads back to the same duration."""
    milliseconds = duration / timedelta(milliseconds=1)
    for unit in ("d", "h", "m", "s"):
        whole, rest = divmod(milliseconds, _SECONDS[unit] * 1000)
        if whole and not rest:
            return f"{int(whole)}{unit}"
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"


def parse_size(text: str) -> int:
    """Read ``512MB`` or ``20GB`` as bytes.

    Units are powers of 1024, as in postgresql.conf. Raises ValueError on anything else.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError("a size is a number and a unit: 512MB, 20GB, 1TB (powers of 1024)")
    return int(Decimal(found[1]) * _BYTES[found[2].lower()])


def format_size(size: int) -> str:
    """The text with the largest unit that :func:`parse_size` reads back to the same size."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size and size % _BYTES[unit.lower()] == 0:
            return f"{size // _BYTES[unit.lower()]}{unit}"
    return f"{size}B"


def _duration(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else _with_unit(value, timedelta)


def _is_zero(value: Any) -> bool:
    return type(value) is int and value == 0


def _size(value: Any, info: ValidationInfo) -> Any:
    if info.mode == "python" and isinstance(value, int):  # from our own code: bytes
        return value
    return parse_size(value) if isinstance(value, str) else _with_unit(value, ())


def _with_unit(value: Any, right: type | tuple[type, ...]) -> Any:
    if isinstance(value, right):
        return value
    raise ValueError("a number needs its unit, such as 500ms or 20GB")


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    # zero would mean "no limit" to the server (PostgreSQL docs, lock_timeout)
    Field(ge=timedelta(milliseconds=1)),
]
DurationOrZero = Annotated[
    timedelta,
    BeforeValidator(lambda value: timedelta() if _is_zero(value) else _duration(value)),
    PlainSerializer(format_duration, return_type=str),
    Field(ge=timedelta()),
]
"""For how long something is done; 0, which needs no unit: not at all."""

Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_size, return_type=str),
    Field(ge=1),
]
