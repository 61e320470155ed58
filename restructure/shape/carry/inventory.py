"""What hangs on a table, as the catalogs have it: compared before the swap, under its lock and after it.

A name missing afterwards rolls the swap back. Whether each thing is also *like* it was is not asked
here, for the plan may have changed it: a view shows a wider column, say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import psycopg

from restructure.errors import NotNow, OperatorNeeded
from restructure.model.names import Names
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.prepared import execute, prepare_text
from restructure.shape.carry.kind import Carrying


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """One thing. ``table`` is the member of the tree that it hangs on, ``column`` the column.

    Both are empty where it hangs on none in particular. The names are the same before and
    after the swap.
    """

    kind: str
    name: str
    table: str
    column: str

    def __str__(self) -> str:
        where = ".".join(part for part in (self.table, self.column) if part)
        return " ".join(part for part in (self.kind, self.name, where and f"on {where}") if part)


Inventory = dict[Held, str]
"""Each thing with its state: text that differs when it was changed, and means nothing otherwise."""


def inventory(connection: Connection, root: Relation, names: Names) -> Inventory:
    """Read it in one round trip; prepared, so that a second time it is not planned again."""
    rows = connection.execute(
        _INVENTORY, {"root": root.oid, "ours": list(names.publications)}, prepare=True
    ).fetchall()
    return _told(rows)


def prepare_inventory(session: Connection, root: Relation, names: Names) -> None:
    """Have ``session`` plan it now, to be read by :func:`prepared_inventory` when every millisecond counts."""
    words = {"root": root.oid, "ours": list(names.publications)}
    prepare_text(session, _PREPARED, psycopg.ClientCursor(session).mogrify(_INVENTORY, words))


def prepared_inventory(session: Connection) -> Inventory:
    """Read what :func:`prepare_inventory` was told to."""
    return _told(session.execute(execute(_PREPARED)).fetchall())


def _told(rows: list[tuple[str, str, str, str, str]]) -> Inventory:
    return {Held(kind, name, table, column): state for kind, name, table, column, state in rows}


def require_unchanged(before: Inventory, now: Inventory) -> None:
    """Raise NotNow that names what has changed since the swap was composed."""
    changed = {thing for thing, _ in before.items() ^ now.items()}
    if changed:
        names = ", ".join(map(str, sorted(changed)))
        raise NotNow(f"what hangs on the table changed just before the lock: {names}")


def require_all(carrying: Carrying, before: Inventory, after: Inventory) -> None:
    """Raise OperatorNeeded that names what the source had and the new table has not."""
    if lost := missing(carrying, before, after):
        raise OperatorNeeded(
            f"the swap was rolled back, for it would have lost {', '.join(map(str, lost))}",
            hint="Nothing has changed for clients. Drop what is named and make it again after the "
            "swap, and please report this: it should have been carried, or refused by check.",
        )


def missing(carrying: Carrying, before: Inventory, after: Inventory) -> list[Held]:
    """What of ``before`` the plan did not take away, and is not in ``after``."""
    members = {pair.old.name: pair.new.name for pair in carrying.pairs}
    expected: list[Held] = []
    for thing in before:
        if thing.table and thing.table not in members:
            continue  # on a partition that the plan has no successor for
        table = members.get(thing.table, "")
        column = carrying.columns.get(thing.column) if thing.column else ""
        if column is not None:
            expected.append(replace(thing, table=table, column=column))
    return sorted(set(_not_the_plans(expected, after)) - after.keys())


def _not_the_plans(expected: Iterable[Held], after: Inventory) -> Iterable[Held]:
    """Indexes and constraints are the plan's, and so their comments are due only where they are."""
    there = {(thing.kind, thing.name, thing.table) for thing in after}
    for thing in expected:
        if thing.kind in _OF_THE_SHAPE:
            continue
        of = thing.kind.removeprefix("comment on ")
        if of in _OF_THE_SHAPE and (of, thing.name, thing.table) not in there:
            continue
        yield thing


_PREPARED = "restructure_inventory"
_OF_THE_SHAPE = ("index", "constraint")

_INVENTORY = """
WITH RECURSIVE tree AS (
    SELECT %(root)s::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid
), member AS (
    SELECT c.* FROM tree JOIN pg_catalog.pg_class c USING (oid)
), hanging (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid, oid FROM tree
    UNION
    SELECT d.*
    FROM hanging h CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = h.classid AND d.refobjid = h.objid
          AND d.classid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_rewrite'::regclass)
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, r.ev_class FROM pg_catalog.pg_rewrite r
        JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind IN ('v', 'm')
        WHERE h.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = h.objid
          AND r.rulename = '_RETURN'
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass, t.oid FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_type t ON t.oid = c.reltype OR t.typelem = c.reltype AND t.typlen = -1
        WHERE h.classid = 'pg_catalog.pg_class'::regclass AND c.oid = h.objid AND c.reltype <> 0
    ) AS d
), viewed AS (
    SELECT c.*, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS full_name
    FROM hanging h JOIN pg_catalog.pg_class c ON c.oid = h.objid AND c.relkind IN ('v', 'm')
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE h.classid = 'pg_catalog.pg_class'::regclass
), called AS (
    SELECT p.oid, p.xmin, n.nspname || '.' || p.proname || '/' || p.pronargs AS full_name, p.proacl
    FROM hanging h JOIN pg_catalog.pg_proc p ON p.oid = h.objid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE h.classid = 'pg_catalog.pg_proc'::regclass
), relation AS (
    SELECT oid, relname::text AS home, '' AS name, '' AS of, relowner, relacl, 'table' AS kind
    FROM member
    UNION ALL
    SELECT oid, '', full_name, ' of ' || full_name, relowner, relacl,
           CASE relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END FROM viewed
), thing (classid, objid, kind, name, home, state) AS (
    SELECT 'pg_catalog.pg_class'::regclass, oid, kind, name, home, '' FROM relation
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::regclass, oid, 'function', full_name, '', xmin::text FROM called
    UNION ALL
    SELECT g.tableoid, g.oid, 'trigger', g.tgname || r.of, r.home, g.tgenabled::text || g.xmin::text
    FROM relation r JOIN pg_catalog.pg_trigger g ON g.tgrelid = r.oid
    WHERE NOT g.tgisinternal AND g.tgparentid = 0 AND g.tgname <> 'restructure_tripwire'
    UNION ALL
    SELECT w.tableoid, w.oid, 'rule', w.rulename || r.of, r.home, w.ev_enabled::text || w.xmin::text
    FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
    WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT w.tableoid, w.oid, 'query', r.name, '', w.xmin::text
    FROM relation r JOIN pg_catalog.pg_rewrite w ON w.ev_class = r.oid
    WHERE w.rulename = '_RETURN'
    UNION ALL
    SELECT p.tableoid, p.oid, 'policy', p.polname, r.home, p.xmin::text
    FROM relation r JOIN pg_catalog.pg_policy p ON p.polrelid = r.oid
    UNION ALL
    SELECT 0, 0, 'row security', CASE WHEN m.relforcerowsecurity THEN 'FORCE' ELSE '' END,
           m.relname, ''
    FROM member m WHERE m.relrowsecurity OR m.relforcerowsecurity
    UNION ALL
    SELECT s.tableoid, s.oid, 'extended statistics',
           pg_catalog.format('%%I.%%I', n.nspname, s.stxname), m.relname, s.xmin::text
    FROM member m JOIN pg_catalog.pg_statistic_ext s ON s.stxrelid = m.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
    UNION ALL
    SELECT 0, 0, 'publication', p.pubname, m.relname, r.xmin::text
    FROM member m JOIN pg_catalog.pg_publication_rel r ON r.prrelid = m.oid
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname <> ALL(%(ours)s::name[])
    UNION ALL
    SELECT k.tableoid, k.oid, 'inbound foreign key',
           pg_catalog.format('%%I of %%I.%%I', k.conname, n.nspname, c.relname), m.relname, k.xmin::text
    FROM member m JOIN pg_catalog.pg_constraint k ON k.confrelid = m.oid AND k.contype = 'f'
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_constraint p ON p.oid = k.conparentid
    WHERE k.conrelid NOT IN (SELECT oid FROM tree) AND coalesce(p.confrelid, m.oid) = m.oid
      -- before PostgreSQL 18 only the leaves' come in the swap
      AND (c.relkind <> 'p' OR current_setting('server_version_num')::int >= 180000)
    UNION ALL
    SELECT k.tableoid, k.oid, 'constraint', k.conname, m.relname, ''
    FROM member m JOIN pg_catalog.pg_constraint k ON k.conrelid = m.oid
    UNION ALL
    SELECT i.tableoid, i.oid, 'index', i.relname, m.relname, ''
    FROM (SELECT oid, relname FROM member UNION ALL SELECT oid, full_name FROM viewed) AS m
    JOIN pg_catalog.pg_index x ON x.indrelid = m.oid
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    UNION ALL
    SELECT 0, 0, 'parent', pg_catalog.format('%%I.%%I', n.nspname, p.relname), m.relname, ''
    FROM member m JOIN pg_catalog.pg_inherits i ON i.inhrelid = m.oid
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
    JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace
    WHERE i.inhparent NOT IN (SELECT oid FROM tree)
)
SELECT kind, name::text, home::text, '', state FROM thing WHERE kind <> 'table'
UNION ALL
SELECT 'owner', pg_catalog.pg_get_userbyid(relowner) || of, home, '', '' FROM relation
UNION ALL
SELECT 'grant', pg_catalog.format('of %%s to %%s%%s', a.privilege_type,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
                CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END) || r.of,
       r.home, '', ''
FROM relation r, pg_catalog.aclexplode(coalesce(r.relacl, pg_catalog.acldefault('r', r.relowner))) a
UNION ALL
SELECT 'grant', pg_catalog.format('of %%s to %%s%%s', a.privilege_type,
                CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
                CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END),
       r.home, c.attname, ''
FROM relation r JOIN pg_catalog.pg_attribute c ON c.attrelid = r.oid AND c.attnum > 0
     AND NOT c.attisdropped, pg_catalog.aclexplode(c.attacl) a
WHERE r.kind = 'table'
UNION ALL
SELECT 'comment' || CASE t.kind WHEN 'table' THEN '' ELSE ' on ' || t.kind END, t.name, t.home,
       coalesce(c.attname, ''), pg_catalog.md5(d.description)
FROM thing t JOIN pg_catalog.pg_description d ON d.classoid = t.classid AND d.objoid = t.objid
LEFT JOIN pg_catalog.pg_attribute c ON c.attrelid = t.objid AND c.attnum = d.objsubid AND c.attnum > 0
WHERE NOT (t.kind <> 'table' AND d.objsubid > 0)
UNION ALL
SELECT 'security label', pg_catalog.concat_ws(' on ', l.provider, nullif(t.name, '')), t.home,
       coalesce(c.attname, ''), pg_catalog.md5(l.label)
FROM thing t JOIN pg_catalog.pg_seclabel l ON l.classoid = t.classid AND l.objoid = t.objid
LEFT JOIN pg_catalog.pg_attribute c ON c.attrelid = t.objid AND c.attnum = l.objsubid AND c.attnum > 0
WHERE NOT (t.kind <> 'table' AND l.objsubid > 0)
"""
