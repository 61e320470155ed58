"""Whatever else is bound to the table: casts, operators, indexes and checks elsewhere.

And what would be lost of views and functions that are made anew.
"""

from __future__ import annotations

from typing import LiteralString

from restructure.postgres.connect import Connection
from restructure.shape.carry.closure import circle_among
from restructure.shape.carry.dependents import REPLACED, Dependent, dependents
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Kind
from restructure.shape.table import Table

_LOST: LiteralString = (
    REPLACED
    + """
SELECT DISTINCT (pg_catalog.pg_identify_object(r.classid, r.objid, 0)).identity || ' ' || lost.what
FROM replaced r
LEFT JOIN pg_catalog.pg_class c
  ON r.classid = 'pg_catalog.pg_class'::regclass AND c.oid = r.objid
CROSS JOIN LATERAL (
    SELECT '(belongs to extension ' || e.extname || ')' AS what
    FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
    WHERE d.classid = r.classid AND d.objid = r.objid AND d.deptype IN ('e', 'x')
      AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    UNION ALL
    SELECT '(has a security label for ' || l.provider || ')'
    FROM pg_catalog.pg_seclabel l WHERE l.classoid = r.classid AND l.objoid = r.objid
    UNION ALL
    SELECT '(trigger ' || g.tgname || ' depends on an extension)'
    FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_depend d ON d.objid = g.oid
    WHERE g.tgrelid = c.oid AND d.classid = 'pg_catalog.pg_trigger'::regclass AND d.deptype = 'x'
    UNION ALL
    SELECT '(index ' || i.indexrelid::regclass || ' depends on an extension)'
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_depend d ON d.objid = i.indexrelid
    WHERE i.indrelid = c.oid AND d.classid = 'pg_catalog.pg_class'::regclass AND d.deptype = 'x'
) AS lost
WHERE r.classid = 'pg_catalog.pg_proc'::regclass OR c.relkind IN ('v', 'm')
ORDER BY 1
"""
)


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    lost = [name for (name,) in connection.execute(_LOST, {"tree": tree}).fetchall()]
    circle = circle_among(connection, tree)
    if circle:
        lost.append(f"{circle} (bound to each other)")
    return [*dependents(connection, table, "other"), *(Dependent("other", name) for name in lost)]


KIND = Kind(
    "object",
    find,
    hint="Drop it and create it again afterwards.",
)
