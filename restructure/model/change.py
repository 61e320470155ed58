"""What a stream delivers: dirty keys, and truncations in their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Origin(NamedTuple):
    """The transaction that dirtied a key.

    ``xid`` is the top-level transaction's 64-bit id. ``committed`` is its commit time in
    microseconds since 2000-01-01 UTC (PostgreSQL's own epoch), None where the
    transaction is still being streamed.
    """

    xid: int
    committed: int | None


class Truncation(NamedTuple):
    """A TRUNCATE of one relation, by its OID."""

    relation: int
    origin: Origin


@dataclass(slots=True)
class Segment:
    """Truncations, then keys that became dirty after them.

    A key is the bytes of its columns in COPY BINARY form: for each column its length as
    a 4-byte integer, then its value as the type's send function writes it. The origin
    is that of the *last* transaction that touched the key: when that one is visible, so
    are the earlier ones, for they held the row's lock before it.
    """

    truncations: list[Truncation] = field(default_factory=list)
    keys: dict[bytes, Origin] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    """A stretch of the stream.

    ``position``: everything committed up to here is in this batch or an earlier one.
    Keys of transactions beyond it may be in the batch too; they will come again after
    a reconnect, which is harmless, and are not yet visible, which the appliers wait for.
    """

    position: str
    segments: list[Segment] = field(default_factory=list)
    committed: int | None = None
    """Commit time of the newest transaction that ``position`` covers, as in Origin."""

    @property
    def key_count(self) -> int:
        return sum(len(segment.keys) for segment in self.segments)

    @property
    def empty(self) -> bool:
        return not any(segment.keys or segment.truncations for segment in self.segments)
