"""Materialized views: made anew with the views, and filled from the new table before every try."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.said import passing
from restructure.postgres.script import Script, Step
from restructure.shape.carry import staging
from restructure.shape.carry.closure import Reader, readers
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Carrying, Kind
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them, also those that read it through others."""
    return dependents(connection, table, "materialized view")


def fill(script: Script, carrying: Carrying) -> None:
    """Fill those whose originals are filled, each after what it reads.

    Raises OperatorNeeded where the query fails, or fills it with rows that its owner may not see.
    """
    found = readers(carrying.connection, carrying.tree["tree"])
    places = staging.beside(carrying, found)
    staging.refuse(_overfull(carrying), carrying)
    for reader in _filled(carrying.connection, found):
        staging.refuse(_fill(script, carrying, reader, places[reader.oid]), carrying)


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Filling one may take long, also where the new table is empty: only rights are looked at."""
    yield from _overfull(carrying)


def _fill(script: Script, carrying: Carrying, reader: Reader, place: Relation) -> Iterator[str]:
    statements = (
        sql.SQL("SET LOCAL row_security = on"),  # it is filled with its owner's rights
        sql.SQL("REFRESH MATERIALIZED VIEW {}").format(place.identifier),
        sql.SQL("ANALYZE {}").format(place.identifier),
        sql.SQL("SET LOCAL row_security = off"),
    )
    lock = f"ACCESS EXCLUSIVE on {place}"
    why = f"{reader.label}, as fresh as it can be"

    if carrying.trial:
        script.steps += [Step.of(script.connection, s, lock=lock, why=why) for s in statements]
        return
    try:
        with script.connection.transaction(), carrying.staged():
            for statement in statements:
                script.run(statement, lock=lock, why=why)
    except psycopg.DatabaseError as error:
        if passing(error):
            raise
        # PostgreSQL's own words may hold a row's value
        where = f" in {error.diag.constraint_name}" if error.diag.constraint_name else ""
        yield f"{reader.label} cannot be filled: {type(error).__name__}{where} ({error.sqlstate})"


def _filled(connection: Connection, found: tuple[Reader, ...]) -> Iterator[Reader]:
    populated = {
        oid
        for (oid,) in connection.execute(_POPULATED, [[reader.oid for reader in found]]).fetchall()
    }
    return (reader for reader in found if reader.oid in populated)


def _overfull(carrying: Carrying) -> Iterator[str]:
    """Those that row-level security keeps some rows from: it does not act on the shadow yet."""
    rows = carrying.connection.execute(_SECURED, carrying.tree).fetchall()
    subject = {oid for (oid,) in rows}
    found = readers(carrying.connection, carrying.tree["tree"])
    reached: dict[int, bool] = {}
    for reader in found:
        reached[reader.oid] = reader.oid in subject or any(reached[oid] for oid in reader.needs)
    for reader in _filled(carrying.connection, found):
        if reached[reader.oid]:
            yield (
                f"{reader.label}: row-level security hides rows of {carrying.source.relation} "
                "from its owner, and would not while it is filled from the new table"
            )


_POPULATED = """
SELECT oid::int8 FROM pg_catalog.pg_class
WHERE oid = ANY(%s::oid[]) AND relkind = 'm' AND relispopulated
"""

_SECURED = """
SELECT DISTINCT v.oid::int8
FROM unnest(%(tree)s::oid[]) AS member (oid)
JOIN pg_catalog.pg_class t ON t.oid = member.oid AND t.relrowsecurity
CROSS JOIN pg_catalog.pg_class v
JOIN pg_catalog.pg_roles o ON o.oid = v.relowner AND NOT o.rolsuper AND NOT o.rolbypassrls
WHERE v.relkind IN ('v', 'm')
  AND (t.relforcerowsecurity OR NOT pg_catalog.pg_has_role(v.relowner, t.relowner, 'USAGE'))
"""

KIND = Kind(
    "materialized view",
    find,
    how="made anew beside the new table and filled (REFRESH) before every try, so it is as fresh "
    "as that; this reads the new table, and takes as long as it takes",
    hint="Drop it, or give the new table what it reads; it can be created again afterwards.",
    ahead=fill,
    rehearse=rehearse,
)
