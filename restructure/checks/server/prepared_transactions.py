"""A prepared transaction holds back a new slot for ever, in whichever database it is."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "prepared_transactions"

_PREPARED = """
SELECT gid, owner, database, extract(epoch FROM clock_timestamp() - prepared)::int
FROM pg_catalog.pg_prepared_xacts ORDER BY prepared
"""


def find(context: CheckContext) -> Iterator[Finding]:
    for gid, owner, database, age in context.rows(_PREPARED):
        yield Finding(
            NAME,
            f"transaction {gid!r} of {owner} in database {database} has been prepared for {age} s",
            "The slot cannot be made before its owner ends it: COMMIT PREPARED or ROLLBACK "
            "PREPARED. We never do.",
            refuses=False,
        )
