"""Everything that is bound to a table by OID, and so would stay with it when it retires.

One walk over pg_depend; each kind's own file picks its part. What no kind claims is "other",
so that nothing unknown is ever left behind by silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from restructure.postgres.connect import Connection
from restructure.shape.carry.family import family
from restructure.shape.table import Table

Find = Callable[[Connection, Table], list["Dependent"]]


@dataclass(frozen=True, slots=True)
class Dependent:
    """One thing that hangs on a table. ``name`` is as pg_identify_object gives it."""

    kind: str
    name: str


_WALK = """
WITH tree AS (SELECT unnest(%(tree)s::oid[]) AS oid),
target (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass, oid FROM tree
    UNION ALL
    SELECT 'pg_catalog.pg_type'::regclass, t.oid
    FROM tree JOIN pg_catalog.pg_type t ON t.typrelid = tree.oid
    UNION ALL
    SELECT 'pg_catalog.pg_type'::regclass, t.typarray
    FROM tree JOIN pg_catalog.pg_type t ON t.typrelid = tree.oid
    UNION ALL  -- an identity's own sequence retires too, a serial's does not
    SELECT d.classid, d.objid
    FROM tree JOIN pg_catalog.pg_depend d ON d.refobjid = tree.oid AND d.deptype = 'i'
         AND d.refclassid = 'pg_catalog.pg_class'::regclass
         AND d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0
    JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'),
found AS (
    SELECT DISTINCT d.classid, d.objid
    FROM pg_catalog.pg_depend d JOIN target t ON t.classid = d.refclassid AND t.objid = d.refobjid
    WHERE (d.classid, d.objid) NOT IN (SELECT classid, objid FROM target)),
placed AS (
    SELECT f.classid, f.objid, coalesce(r.ev_class, k.conrelid, a.adrelid, g.tgrelid, y.polrelid,
                                        s.stxrelid, p.prrelid, i.indrelid, c.oid) AS home,
           c.relkind, k.contype, k.confrelid,
           coalesce(k.conparentid, 0) <> 0 OR coalesce(g.tgparentid, 0) <> 0
           OR coalesce(g.tgisinternal, false) AS inherited
    FROM found f
    LEFT JOIN pg_catalog.pg_rewrite r ON f.classid = r.tableoid AND f.objid = r.oid
    LEFT JOIN pg_catalog.pg_constraint k ON f.classid = k.tableoid AND f.objid = k.oid
    LEFT JOIN pg_catalog.pg_attrdef a ON f.classid = a.tableoid AND f.objid = a.oid
    LEFT JOIN pg_catalog.pg_trigger g ON f.classid = g.tableoid AND f.objid = g.oid
    LEFT JOIN pg_catalog.pg_policy y ON f.classid = y.tableoid AND f.objid = y.oid
    LEFT JOIN pg_catalog.pg_statistic_ext s ON f.classid = s.tableoid AND f.objid = s.oid
    LEFT JOIN pg_catalog.pg_publication_rel p ON f.classid = p.tableoid AND f.objid = p.oid
    LEFT JOIN pg_catalog.pg_class c ON f.classid = c.tableoid AND f.objid = c.oid
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid),
judged AS (
    SELECT p.*, h.relkind AS home_kind, p.home IN (SELECT oid FROM tree) AS ours
    FROM placed p LEFT JOIN pg_catalog.pg_class h ON h.oid = p.home)
SELECT CASE j.classid::regclass::text
         WHEN 'pg_rewrite' THEN
           CASE WHEN NOT ours AND home_kind = 'v' THEN 'view'
                WHEN NOT ours AND home_kind = 'm' THEN 'materialized view' ELSE 'rule' END
         WHEN 'pg_constraint' THEN
           CASE WHEN contype <> 'f' THEN CASE WHEN NOT ours THEN 'other' END
                WHEN NOT ours THEN 'inbound foreign key'
                WHEN confrelid IN (SELECT oid FROM tree) THEN 'self-reference' END
         WHEN 'pg_attrdef' THEN CASE WHEN NOT ours THEN 'default' END
         WHEN 'pg_trigger' THEN 'trigger'
         WHEN 'pg_policy' THEN 'policy'
         WHEN 'pg_statistic_ext' THEN 'extended statistics'
         WHEN 'pg_publication_rel' THEN NULL
         WHEN 'pg_proc' THEN 'function'
         WHEN 'pg_class' THEN
           CASE WHEN ours OR j.relkind IN ('t', 'S') THEN NULL
                WHEN j.relkind = 'v' THEN 'view' WHEN j.relkind = 'm' THEN 'materialized view'
                WHEN j.relkind IN ('r', 'p', 'f', 'c') THEN 'row type' ELSE 'other' END
         WHEN 'pg_type' THEN 'row type'
         ELSE 'other' END AS kind,
       CASE j.classid::regclass::text
         WHEN 'pg_rewrite' THEN CASE WHEN NOT ours AND home_kind IN ('v', 'm')
              THEN (SELECT identity FROM pg_catalog.pg_identify_object(
                    'pg_catalog.pg_class'::regclass, j.home, 0)) ELSE n.identity END
         ELSE n.identity END AS name
FROM judged j
CROSS JOIN LATERAL pg_catalog.pg_identify_object(j.classid, j.objid, 0) AS n
WHERE NOT inherited
ORDER BY kind, name
"""


def dependents(connection: Connection, table: Table, kind: str) -> list[Dependent]:
    """What of ``kind`` hangs on ``table`` or one of its partitions, by name."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    rows = connection.execute(_WALK, {"tree": tree}).fetchall()
    names = dict.fromkeys(name for found, name in rows if found == kind)
    return [Dependent(kind, name) for name in names]


def every_dependent(connection: Connection, table: Table) -> list[Dependent]:
    """All kinds at once, for whoever wants only to look."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    rows = connection.execute(_WALK, {"tree": tree}).fetchall()
    return list(dict.fromkeys(Dependent(kind, name) for kind, name in rows if kind))
