"""What the core asks of the outside: the stream port.

A connector implements :class:`Stream` and announces a :class:`StreamFactory` under the entry-point
group ``restructure.streams``; the plan's ``stream.kind`` names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from restructure.errors import UsageError
from restructure.model.change import Batch
from restructure.model.names import Names
from restructure.model.relation import Watched


@dataclass(frozen=True, slots=True)
class StreamLag:
    """How far a stream is behind, as the server sees it.

    ``lag_bytes``: WAL written and not yet confirmed. ``retained_bytes``: WAL the server keeps
    for this stream. ``healthy`` is False when the stream is lost for good.
    """

    lag_bytes: int
    retained_bytes: int
    healthy: bool = True
    reason: str = ""


class Stream(Protocol):
    """Says which keys of the watched relations changed, in commit order per key.

    Positions are opaque texts, comparable only by :meth:`reached`. ``poll`` and
    ``keepalive`` belong to one thread; the other methods may be called from any.
    """

    def prepare(self, watched: Watched) -> str:
        """Make what the stream needs on the server; return the position it starts from.

        Safe to repeat after a crash at any moment: a half-made stream is made anew, a
        whole one is found and kept. Blocks until every change committed after the
        returned position is certain to be delivered.
        """

    def interrupt(self) -> None:
        """Let no :meth:`prepare` of this object wait any more: one that does, or would, raises
        Interrupted soon and leaves nothing half-made. May be called again and again.
        """

    def open(self, watched: Watched, position: str) -> None:
        """Start reading after ``position``. Raises StreamGap if that is not possible."""

    def poll(self, timeout: float, max_keys: int) -> Batch | None:
        """Return what has arrived, waiting up to ``timeout`` seconds; None if nothing did.

        A batch may be empty and only move the position. Reconnects by itself; raises
        StreamGap when changes were lost, OperatorNeeded when it cannot go on.
        """

    def keepalive(self) -> None:
        """Keep the stream alive while nobody can take a batch. Returns at once."""

    def confirm(self, position: str) -> None:
        """All up to ``position`` is durable with us: the server may forget it."""

    def fence(self) -> str:
        """Return a position that covers everything committed before this call.

        Makes sure that the stream will arrive there even if nobody writes.
        """

    def reached(self, position: str, fence: str) -> bool:
        """Whether ``position`` covers ``fence``."""

    def lag(self) -> StreamLag:
        """Ask the server how far the stream is behind."""

    def close(self) -> None:
        """Stop reading; what was prepared stays."""

    def drop(self) -> None:
        """Remove from the server whatever ``prepare`` made, whole or half."""


StreamFactory = Callable[[str, Names, dict[str, Any]], Stream]
"""``factory(dsn, names, options)`` with the options of the plan's ``stream``."""


def find_stream(kind: str) -> StreamFactory:
    """Return the connector announced as ``kind``. Raises UsageError if there is none."""
    found = {entry.name: entry for entry in entry_points(group="restructure.streams")}
    if kind not in found:
        raise UsageError(
            f"no stream connector named {kind!r}",
            hint=f"Installed: {', '.join(sorted(found)) or 'none'}.",
        )
    factory: StreamFactory = found[kind].load()
    return factory
