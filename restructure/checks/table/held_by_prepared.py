"""A prepared transaction that holds the table would stop the cutover for ever."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding
from restructure.postgres.locks import blockers

NAME = "held_by_prepared"


def find(context: CheckContext) -> Iterator[Finding]:
    for holder in blockers(context.connection, context.oids, "ACCESS EXCLUSIVE"):
        if holder.kind == "prepared":
            yield Finding(
                NAME,
                str(holder),
                "Its owner has to end it: COMMIT PREPARED or ROLLBACK PREPARED. We never do.",
            )
