"""The retired table keeps rows, constraints and indexes, and nothing that acts by itself.

All of it was carried to the table that serves now, and is carried back from there, as it is then,
should one go back: here it would fire for the writes that keep this table in step, or refuse them.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from restructure.postgres.script import Script
from restructure.shape.carry.sequences import generated
from restructure.shape.carry.tripwire import TRIGGER
from restructure.shape.table import Table


def quiet(script: Script, retired: Table) -> None:
    """Remove triggers, rules and policies of the tree; let its identity columns take any value.

    In the caller's transaction, and safe to repeat.
    """
    for statement in _statements(script, retired):
        script.run(
            statement,
            lock=f"ACCESS EXCLUSIVE on {retired.relation}",
            why="what acts on rows is the serving table's now",
        )


def _statements(script: Script, retired: Table) -> Iterator[sql.Composed]:
    connection = script.connection
    for member in retired.tree:
        parameters = {"table": member.oid, "tripwire": TRIGGER}
        for kind, name in connection.execute(_ACTING, parameters).fetchall():
            yield sql.SQL("DROP {} {} ON {}").format(
                sql.SQL(kind), sql.Identifier(name), member.identifier
            )
        secured = connection.execute(_SECURED, [member.oid]).fetchone()
        if secured and secured[0]:
            yield sql.SQL(
                "ALTER TABLE {} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
            ).format(member.identifier)
    for column in retired.columns:
        if column.identity == "a":
            yield generated(retired.relation, column.name, "BY DEFAULT")


_ACTING = """
SELECT 'TRIGGER', tgname::text FROM pg_catalog.pg_trigger
WHERE tgrelid = %(table)s AND NOT tgisinternal AND tgparentid = 0 AND tgname <> %(tripwire)s
UNION ALL
SELECT 'RULE', rulename FROM pg_catalog.pg_rewrite WHERE ev_class = %(table)s
UNION ALL
SELECT 'POLICY', polname FROM pg_catalog.pg_policy WHERE polrelid = %(table)s
"""

_SECURED = """
SELECT relrowsecurity OR relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = %s
"""
