"""A CHECK on the shadow that says what the source's place in a partitioned table demands of a row."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.deparse import canonical, printed

_CHECK = "restructure_bound_"


def bound_checks(connection: Connection, shadow: Relation) -> dict[str, bool]:
    """The names of such constraints that ``shadow`` has, and whether they are validated."""
    return dict(connection.execute(_CHECKS, {"table": shadow.oid}).fetchall())


def hold_to_bound(script: Script, source: Relation, shadow: Relation) -> None:
    """Let a CHECK of the shadow say what the source's place demands; do nothing where one does.

    Locks the shadow only. On the empty shadow it costs nothing; later (when the demand has
    changed, for a default partition's does with each new one beside it) its rows are looked at.
    What cannot be said of the shadow's columns is left out: ATTACH refuses such a shadow anyway.
    """
    connection = script.connection
    with canonical(connection):
        row = connection.execute(
            "SELECT pg_get_partition_constraintdef(%s::oid)", [source.oid]
        ).fetchone()
    demand = (row and row[0]) or ""
    name = _CHECK + hashlib.sha256(demand.encode()).hexdigest()[:8] if demand else ""
    there = bound_checks(connection, shadow)
    lock = f"ACCESS EXCLUSIVE on {shadow}"
    for surplus in there.keys() - {name}:
        drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}")
        script.run(
            drop.format(shadow.identifier, sql.Identifier(surplus)),
            lock=lock,
            why="the place of the source demands something else now",
        )
    if not name:
        return
    try:
        with connection.transaction():
            if name not in there:
                add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID")
                script.run(
                    add.format(shadow.identifier, sql.Identifier(name), printed(demand)),
                    lock=lock,
                    why="proves to ATTACH PARTITION that it need not look at the rows",
                )
            if not there.get(name):
                validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
                script.run(
                    validate.format(shadow.identifier, sql.Identifier(name)),
                    lock=f"SHARE UPDATE EXCLUSIVE on {shadow}",
                    why="looks at what rows there are, before anything else is locked",
                )
    except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction):
        return


_CHECKS = f"""
SELECT conname, convalidated FROM pg_catalog.pg_constraint
WHERE conrelid = %(table)s AND contype = 'c' AND starts_with(conname, '{_CHECK}') ORDER BY conname
"""
