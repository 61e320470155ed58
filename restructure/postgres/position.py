"""The position of a slot's reader, as the text that the core stores."""

from __future__ import annotations

from typing import NamedTuple

from restructure.errors import OperatorNeeded
from restructure.model.lsn import Lsn
from restructure.postgres.walsender import System


class Position(NamedTuple):
    """Where a stream is, and what must not have changed when reading goes on from there.

    ``publication`` is a digest of the publication's identity. As text:
    ``system/timeline/publication/LSN``.
    """

    system: System
    publication: str
    lsn: Lsn

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read the text form. Raises OperatorNeeded on anything else."""
        try:
            identifier, timeline, digest, lsn = text.split("/", 3)
            return cls(System(identifier, int(timeline)), digest, Lsn.parse(lsn))
        except ValueError as error:
            raise OperatorNeeded(f"not a position of a pgoutput stream: {text!r}") from error

    def __str__(self) -> str:
        return f"{self.system.identifier}/{self.system.timeline}/{self.publication}/{self.lsn}"

    def at(self, lsn: int) -> str:
        """The text of another position of the same stream."""
        return str(self._replace(lsn=Lsn(lsn)))
