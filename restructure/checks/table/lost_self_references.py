"""A self-reference that DDL written anew leaves out: meant, or forgotten?

Needs the shadow, so preflight asks it.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.types.json import Jsonb

from restructure.errors import Finding
from restructure.postgres.connect import Connection
from restructure.shape.carry.family import column_heirs
from restructure.shape.carry.self_references import self_references
from restructure.shape.made import Shadow
from restructure.shape.table import Table

NAME = "lost_self_references"

_COLUMNS = """
SELECT pg_catalog.string_agg(
    quote_ident(coalesce(%(heirs)s::jsonb ->> a.attname, a.attname)), ', ' ORDER BY c.position)
FROM pg_catalog.pg_constraint k
CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS c (number, position)
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number
WHERE k.oid = %(key)s
"""


def find(connection: Connection, source: Table, shadow: Shadow) -> Iterator[Finding]:
    """Warn of those that no foreign key of the new table on the same columns replaces."""
    heirs = Jsonb(column_heirs(source, shadow.mapping))
    made = [aside.statement for aside in shadow.set_aside]
    for key in self_references(connection, source):
        row = connection.execute(_COLUMNS, {"heirs": heirs, "key": key.oid}).fetchone()
        start = f" FOREIGN KEY ({row[0] if row else ''}) REFERENCES "
        if not any(start in statement for statement in made):
            yield Finding(
                NAME,
                f"foreign key {key.name} of {source.relation} points to the table itself; the "
                "table of create has none on the same columns",
                "Write it into create, or go on if it is meant to go.",
                refuses=False,
            )
