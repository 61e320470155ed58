"""Which expression over the old row fills each column of the new one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FilledColumn:
    """A new column and the SQL expression over the old row that fills it.

    Expressions see the old row under the source table's own name. Columns that the shadow fills itself
    (default, identity, generated) are not listed at all.
    """

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key column of the source and the column of the shadow that holds it.

    The shadow's value is ``CAST(source value AS target_type)``.
    """

    source: str
    target: str
    target_type: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """The transform: everything needed to compose copy, catch-up and verify."""

    filled: tuple[FilledColumn, ...]
    key: tuple[KeyPair, ...]
    where: str | None
