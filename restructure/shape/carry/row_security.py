"""ROW LEVEL SECURITY switched on, with or without a policy."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from restructure.postgres.connect import Connection
from restructure.postgres.script import Step
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.table import Table

_FIND = """
SELECT (pg_catalog.pg_identify_object(tableoid, oid, 0)).identity
       || CASE WHEN relforcerowsecurity THEN ' (FORCE)' ELSE '' END
FROM pg_catalog.pg_class
WHERE oid = ANY(%s::oid[]) AND (relrowsecurity OR relforcerowsecurity) ORDER BY oid
"""

_FLAGS = "SELECT relrowsecurity, relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = %s"


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    return [Dependent("row security", name) for (name,) in connection.execute(_FIND, [tree])]


def part(carrying: Carrying) -> Part:
    """Switch it on where it is on now. A partition that goes needs none: nobody can name it then."""
    return Part(up=tuple(_switches(carrying)))


def _switches(carrying: Carrying) -> Iterator[Step]:
    for pair in carrying.pairs:
        row = carrying.connection.execute(_FLAGS, [pair.old.oid]).fetchone()
        enabled, forced = row or (False, False)
        clauses = [sql.SQL("ENABLE ROW LEVEL SECURITY")] if enabled else []
        clauses += [sql.SQL("FORCE ROW LEVEL SECURITY")] if forced else []
        if clauses:
            yield Step.of(
                carrying.connection,
                sql.SQL("ALTER TABLE {} {}").format(
                    pair.final.identifier, sql.SQL(", ").join(clauses)
                ),
                lock=f"ACCESS EXCLUSIVE on {pair.final}",
                why="row-level security as before",
            )


def rehearse(_: Carrying) -> Iterator[str]:
    """Nothing can refuse this."""
    return iter(())


KIND = Kind(
    "row security",
    find,
    how="switched on in the swap; before it, only the owner could read the new table",
    hint="ALTER TABLE … DISABLE ROW LEVEL SECURITY first.",
    part=part,
    rehearse=rehearse,
)
