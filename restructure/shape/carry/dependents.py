"""Everything that is bound to a table by OID, and so would stay with it when it retires.

One walk over pg_depend; each kind's own file picks its part. What no kind claims is "other",
so that nothing unknown is ever left behind by silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import LiteralString

from restructure.postgres.connect import Connection
from restructure.shape.carry.family import family
from restructure.shape.table import Table

Find = Callable[[Connection, Table], list["Dependent"]]


@dataclass(frozen=True, slots=True)
class Dependent:
    """One thing that hangs on a table. ``name`` is as pg_identify_object gives it.

    ``oid`` is its own in the catalog of its kind; 0 where a kind's own query names it.
    """

    kind: str
    name: str
    oid: int = field(default=0, compare=False)


REPLACED: LiteralString = """
WITH RECURSIVE tree AS (SELECT unnest(%(tree)s::oid[]) AS oid),
replaced (classid, objid) AS (
    (SELECT 'pg_catalog.pg_class'::regclass::oid, oid FROM tree
     UNION ALL  -- an identity's own sequence retires too, a serial's does not
     SELECT d.classid, d.objid
     FROM tree JOIN pg_catalog.pg_depend d ON d.refobjid = tree.oid AND d.deptype = 'i'
          AND d.refclassid = 'pg_catalog.pg_class'::regclass
          AND d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0
     JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S')
    UNION
    SELECT n.* FROM replaced r CROSS JOIN LATERAL (
        SELECT 'pg_catalog.pg_class'::regclass::oid AS classid, w.ev_class AS objid
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
        WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND w.ev_type = '1'
          AND d.classid = 'pg_catalog.pg_rewrite'::regclass
        UNION ALL  -- a column may be of the row type
        SELECT d.classid, d.objid
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class c ON c.oid = d.objid
        WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND c.relkind IN ('v', 'm')
          AND d.classid = 'pg_catalog.pg_class'::regclass
        UNION ALL  -- a function with the row type in its signature is another one then
        SELECT d.classid, d.objid
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
        WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND p.prokind <> 'a'
          AND r.classid = 'pg_catalog.pg_type'::regclass
          AND d.classid = 'pg_catalog.pg_proc'::regclass
          AND (r.objid = p.prorettype OR r.objid = ANY (p.proargtypes)
               OR r.objid = ANY (p.proallargtypes))
        UNION ALL
        SELECT t.tableoid, t.oid FROM pg_catalog.pg_type t
        WHERE r.classid = 'pg_catalog.pg_class'::regclass AND t.typrelid = r.objid
        UNION ALL  -- the array of it
        SELECT t.tableoid, t.typarray FROM pg_catalog.pg_type t
        WHERE r.classid = 'pg_catalog.pg_type'::regclass AND t.oid = r.objid AND t.typarray <> 0
    ) AS n)
"""
"""What stays behind: the tree, and whatever is made anew because it is bound to that by OID.

Such are views, materialized views and functions with a row type in their signature, and then
all such things that hang on those.
"""

_WALK: LiteralString = (
    REPLACED
    + """,
found AS (
    SELECT d.classid, d.objid
    FROM pg_catalog.pg_depend d JOIN replaced r ON r.classid = d.refclassid AND r.objid = d.refobjid
    EXCEPT SELECT classid, objid FROM replaced
    UNION ALL
    SELECT r.classid, r.objid
    FROM replaced r LEFT JOIN pg_catalog.pg_class c
      ON r.classid = c.tableoid AND r.objid = c.oid
    WHERE r.classid = 'pg_catalog.pg_proc'::regclass OR c.relkind IN ('v', 'm')),
placed AS (
    SELECT f.classid, f.objid, coalesce(r.ev_class, k.conrelid, a.adrelid, g.tgrelid, y.polrelid,
                                        s.stxrelid, p.prrelid, i.indrelid, c.oid) AS home,
           c.relkind, k.contype, k.confrelid,
           coalesce(k.conparentid, 0) <> 0 OR coalesce(g.tgparentid, 0) <> 0
           OR coalesce(g.tgisinternal, false) AS inherited,
           EXISTS (SELECT FROM pg_catalog.pg_attribute b WHERE b.attrelid = a.adrelid
                   AND b.attnum = a.adnum AND b.attgenerated <> '') AS generated, o.prokind
    FROM found f
    LEFT JOIN pg_catalog.pg_rewrite r ON f.classid = r.tableoid AND f.objid = r.oid
    LEFT JOIN pg_catalog.pg_constraint k ON f.classid = k.tableoid AND f.objid = k.oid
    LEFT JOIN pg_catalog.pg_attrdef a ON f.classid = a.tableoid AND f.objid = a.oid
    LEFT JOIN pg_catalog.pg_trigger g ON f.classid = g.tableoid AND f.objid = g.oid
    LEFT JOIN pg_catalog.pg_policy y ON f.classid = y.tableoid AND f.objid = y.oid
    LEFT JOIN pg_catalog.pg_statistic_ext s ON f.classid = s.tableoid AND f.objid = s.oid
    LEFT JOIN pg_catalog.pg_publication_rel p ON f.classid = p.tableoid AND f.objid = p.oid
    LEFT JOIN pg_catalog.pg_proc o ON f.classid = o.tableoid AND f.objid = o.oid
    LEFT JOIN pg_catalog.pg_class c ON f.classid = c.tableoid AND f.objid = c.oid
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid),
judged AS (
    SELECT p.*, p.home IN (SELECT oid FROM tree) AS ours,
           ('pg_catalog.pg_class'::regclass::oid, p.home) IN (SELECT classid, objid FROM replaced)
           AND p.home NOT IN (SELECT oid FROM tree) AND p.relkind IS DISTINCT FROM 'v'
           AND p.relkind IS DISTINCT FROM 'm' AS of_a_view
    FROM placed p)
SELECT CASE j.classid::regclass::text
         WHEN 'pg_rewrite' THEN CASE WHEN NOT of_a_view THEN 'rule' END
         WHEN 'pg_constraint' THEN
           CASE WHEN contype <> 'f' THEN CASE WHEN NOT ours THEN 'other' END
                WHEN NOT ours THEN 'inbound foreign key'
                WHEN confrelid IN (SELECT oid FROM tree) THEN 'self-reference' END
         WHEN 'pg_attrdef' THEN CASE WHEN NOT ours AND NOT of_a_view
                                THEN CASE WHEN generated THEN 'other' ELSE 'default' END END
         WHEN 'pg_trigger' THEN CASE WHEN NOT of_a_view THEN 'trigger' END
         WHEN 'pg_policy' THEN 'policy'
         WHEN 'pg_statistic_ext' THEN CASE WHEN ours THEN 'extended statistics' ELSE 'other' END
         WHEN 'pg_publication_rel' THEN NULL
         WHEN 'pg_proc' THEN CASE WHEN prokind = 'a' THEN 'other' ELSE 'function' END
         WHEN 'pg_class' THEN
           CASE WHEN ours OR of_a_view OR j.relkind IN ('t', 'S') THEN NULL
                WHEN j.relkind = 'v' THEN 'view' WHEN j.relkind = 'm' THEN 'materialized view'
                WHEN j.relkind IN ('r', 'p', 'f', 'c') THEN 'row type' ELSE 'other' END
         WHEN 'pg_type' THEN 'row type'
         ELSE 'other' END AS kind,
       n.identity AS name, j.objid::int8 AS oid
FROM judged j
CROSS JOIN LATERAL pg_catalog.pg_identify_object(j.classid, j.objid, 0) AS n
WHERE NOT inherited
ORDER BY kind, name
"""
)


def dependents(connection: Connection, table: Table, kind: str) -> list[Dependent]:
    """What of ``kind`` hangs on ``table``, one of its partitions, or on what hangs on these."""
    return [found for found in every_dependent(connection, table) if found.kind == kind]


def every_dependent(connection: Connection, table: Table) -> list[Dependent]:
    """All kinds at once, for whoever wants only to look."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    rows = connection.execute(_WALK, {"tree": tree}).fetchall()
    return list(dict.fromkeys(Dependent(*row) for row in rows if row[0]))
