"""Event triggers fire for our DDL as for everybody's."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "event_triggers"

_ENABLED = """
SELECT evtname, evtevent, evttags FROM pg_catalog.pg_event_trigger
WHERE evtenabled IN ('O', 'A') ORDER BY evtname
"""

_MAKING = "CREATE SCHEMA, CREATE TABLE, ALTER TABLE, CREATE INDEX, CREATE PUBLICATION"
_SWAPPING = (
    "ALTER TABLE (SET SCHEMA; ATTACH or DETACH PARTITION; foreign keys), ALTER SEQUENCE, CREATE "
    "TRIGGER, and CREATE, ALTER, COMMENT and GRANT for what hangs on the table (views, rules, "
    "policies, publications …)"
)
_DDL = f"{_MAKING} while the new table is made; in the swap {_SWAPPING}"
_SEEN = {
    "ddl_command_start": _DDL,
    "ddl_command_end": _DDL,
    "sql_drop": "indexes and constraints of the new table that wait for the copy's end; in the swap "
    "constraints of the table that retires, and what hangs on it and is made again",
    "table_rewrite": "ALTER TABLE on the new table while it is empty, nothing in the swap",
    "login": "each of the job's own connections",
}


def find(context: CheckContext) -> Iterator[Finding]:
    for name, event, tags in context.rows(_ENABLED):
        only = f", only {', '.join(tags)}" if tags else ""
        yield Finding(
            NAME,
            f"event trigger {name} ({event}{only}) will fire for the job's own DDL: "
            f"{_SEEN.get(event, _DDL)}",
            "Make sure that it lets these pass, in the short swap transaction too: where it raises "
            "an error the swap is rolled back as a whole, and what it does there lengthens the lock.",
            refuses=False,
        )
