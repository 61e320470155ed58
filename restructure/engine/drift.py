"""Drift: the source must stay the table that the job was prepared for."""

from __future__ import annotations

from restructure.errors import SchemaDrift
from restructure.postgres.connect import Connection
from restructure.shape.fingerprint import Fingerprint, fingerprint
from restructure.shape.table import Table


class Guard:
    """Compares the source with its fingerprint of setup, every loop and under the swap's lock."""

    def __init__(self, source: Table, expected: Fingerprint) -> None:
        self._source = source
        self._expected = expected

    def check(self, connection: Connection) -> Fingerprint:
        """Raise SchemaDrift in words where something changed that the job depends on.

        Returns the fingerprint of now: grants, comments and the like may have changed in it.
        """
        now = fingerprint(connection, self._source)
        if differences := self._expected.differences(now):
            raise SchemaDrift(
                f"{self._source.relation} is no longer the table this job was prepared for: "
                + "; ".join(differences),
                hint="Undo the change, or abort the job and start over with the table as it is now.",
            )
        return now
