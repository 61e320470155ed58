"""What the table itself is part of: the partitioned table above it, or the tables it inherits from.

The source is detached and the shadow attached with the same bound. Neither looks at a row: the
shadow has, from when it is empty, a CHECK that says what its place demands of each row, and
PostgreSQL skips the scan where a constraint proves that (sql-altertable, ATTACH PARTITION).
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.postgres.script import Script, Step
from restructure.shape.carry.above import Above, rehearse_joining, tables_above
from restructure.shape.carry.bound import bound_checks, hold_to_bound
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.kind import NOTHING, Carrying, Kind, Part
from restructure.shape.table import Table


def _find(connection: Connection, table: Table) -> list[Dependent]:
    return [
        Dependent("membership", str(above.relation))
        for above in tables_above(connection, table.relation)
    ]


def _ahead(script: Script, carrying: Carrying) -> None:
    hold_to_bound(script, carrying.source.relation, carrying.shadow.relation)


def _part(carrying: Carrying) -> Part:
    connection, table = carrying.connection, carrying.source.relation
    parents = tables_above(connection, table)
    if not parents:
        return NOTHING
    whole = [above.relation for above in parents]
    whole += [above.default for above in parents if above.default is not None]
    # ONLY: LOCK TABLE would go on to all partitions. Clients lock it before ours, and while we
    # have it nobody waits for ours who has looked it up as its partition already.
    first = tuple(
        Step.of(
            connection,
            sql.SQL("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE").format(relation.identifier),
            lock=f"ACCESS EXCLUSIVE on {relation}",
            why=f"{table} leaves it and comes back; its clients lock it before {table}",
        )
        for relation in whole
    )
    down = tuple(_leave(connection, above, table) for above in reversed(parents))
    up = (
        *(_join(connection, above, table) for above in parents),
        *_without_checks(carrying),
    )
    wanted = tuple(Wanted(relation, "ACCESS EXCLUSIVE", lockable=False) for relation in whole)
    return Part(first=first, down=down, up=up, wanted=wanted)


def _leave(connection: Connection, above: Above, table: Relation) -> Step:
    form = "ALTER TABLE {parent} DETACH PARTITION {table}"
    if above.bound is None:
        form = "ALTER TABLE {table} NO INHERIT {parent}"
    return Step.of(
        connection,
        sql.SQL(form).format(parent=above.relation.identifier, table=table.identifier),
        lock=_lock(above, table),
        why="the retired table must not be part of it any more",
    )


def _join(connection: Connection, above: Above, table: Relation) -> Step:
    return Step.of(
        connection,
        above.joining(above.relation, table),
        lock=_lock(above, table),
        why="the new table takes the old one's place; no row is looked at",
    )


def _lock(above: Above, table: Relation) -> str:
    names = [str(table), str(above.relation), *([str(above.default)] if above.default else [])]
    return "ACCESS EXCLUSIVE on " + ", ".join(names[:-1]) + f" and {names[-1]}"


def _without_checks(carrying: Carrying) -> Iterator[Step]:
    connection, table = carrying.connection, carrying.source.relation
    for name in bound_checks(connection, carrying.shadow.relation):
        yield Step.of(
            connection,
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                table.identifier, sql.Identifier(name)
            ),
            lock=f"ACCESS EXCLUSIVE on {table}",
            why="its place demands the same from here on",
        )


def _find_keys(connection: Connection, table: Table) -> list[Dependent]:
    rows = connection.execute(_KEYS, {"table": table.relation.oid}).fetchall()
    return [Dependent("foreign key of the table above", name) for (name,) in rows]


_KEYS = """
WITH RECURSIVE above AS (
    SELECT k.oid, k.conparentid, k.conrelid, k.confrelid, k.conrelid = %(table)s AS outbound
    FROM pg_catalog.pg_constraint k
    WHERE k.contype = 'f' AND k.conparentid <> 0
      AND (k.conrelid = %(table)s OR k.confrelid = %(table)s)
    UNION
    SELECT p.oid, p.conparentid, p.conrelid, p.confrelid, a.outbound
    FROM pg_catalog.pg_constraint p JOIN above a ON a.conparentid = p.oid)
SELECT DISTINCT
       (pg_catalog.pg_identify_object('pg_catalog.pg_constraint'::regclass, oid, 0)).identity
FROM above
WHERE conparentid = 0 AND CASE WHEN outbound THEN conrelid ELSE confrelid END <> %(table)s
ORDER BY 1
"""
"""A key that the table has by itself has its own row of it at the top."""

KIND = Kind(
    "membership",
    _find,
    how="leaves the table above and the new table takes its place there, without a look at a row; "
    "the table above (and its default partition) is locked as long as the table itself",
    hint="Restructure the table above as a whole, or change the plan: what is part of a table must "
    "have its columns, constraints and indexes.",
    ahead=_ahead,
    part=_part,
    rehearse=rehearse_joining,
)

KEYS_ABOVE = Kind(
    "foreign key of the table above",
    _find_keys,
    hint="PostgreSQL looks at all rows when a partition leaves or joins a table that has, or is "
    "referenced by, a foreign key. Restructure the partitioned table as a whole.",
)
