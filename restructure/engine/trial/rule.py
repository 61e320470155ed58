"""What the new table demands of its rows, as conditions that a row breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psycopg import sql

Kind = Literal[
    "value", "length", "not_null", "check", "partition", "foreign_key", "index", "unique", "exclude"
]

ALIAS = "restructure_new"
"""The name by which conditions know the new row."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One demand. ``broken`` is a condition over the new row, true where the row is refused.

    With ``evaluated`` the demand is only that ``broken``, then any expression, raises no error.
    ``columns`` are the new columns that it looks at, None where they are not known.
    """

    kind: Kind
    name: str
    broken: sql.Composable
    columns: tuple[str, ...] | None = None
    evaluated: bool = False


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique index. ``parts`` are its columns and expressions over the new row.

    ``columns`` are the columns that it has, None where it has expressions. ``condition`` limits it
    to some rows: its predicate, and the bound of the one partition that has it.
    """

    name: str
    parts: tuple[str, ...]
    columns: tuple[str, ...] | None
    condition: sql.Composable | None
    nulls_distinct: bool


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """A demand that the trial cannot judge, and why."""

    kind: Kind
    name: str
    why: str


@dataclass(slots=True)
class Demands:
    """Everything that the new table demands of a row, beside that its values can be made."""

    rules: list[Rule]
    uniques: list[Unique]
    not_looked_at: list[NotLookedAt]


def column(name: str) -> sql.Composable:
    """A column of the new row."""
    return sql.Identifier(ALIAS, name)
