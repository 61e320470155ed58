"""A table with all that hangs on it, as text: to compare before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from restructure.errors import SchemaDrift
from restructure.postgres.connect import Connection


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every value is text as PostgreSQL prints it, so two inventories compare with ``==``.

    Maps go from a name to a definition. ``grants`` are ACL entries ("grantee=privileges/grantor")
    of the table, its columns ("column: …") and its sequences, with the defaults spelled out.
    Sequences are told by name, type and step, not by how far they have counted.
    """

    owner: str
    grants: tuple[str, ...]
    options: tuple[str, ...]
    columns: dict[str, str]
    constraints: dict[str, str]
    indexes: dict[str, str]
    sequences: dict[str, str]
    triggers: dict[str, str]
    comments: dict[str, str]


_OWNER = """
SELECT pg_catalog.pg_get_userbyid(relowner) FROM pg_catalog.pg_class WHERE oid = %(oid)s
"""

_OWNED = """
    SELECT objid FROM pg_catalog.pg_depend
    WHERE classid = 'pg_catalog.pg_class'::regclass AND refobjid = %(oid)s
      AND refclassid = 'pg_catalog.pg_class'::regclass AND deptype IN ('a', 'i')
"""

_GRANTS: LiteralString = (
    """
SELECT CASE WHEN c.relkind = 'S' THEN c.relname || ': ' ELSE '' END || acl::text AS line
FROM pg_catalog.pg_class c, unnest(coalesce(c.relacl, pg_catalog.acldefault(
    CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))) AS acl
WHERE c.oid = %(oid)s OR (c.relkind = 'S' AND c.oid IN ("""
    + _OWNED
    + """))
UNION ALL
SELECT attname || ': ' || acl::text
FROM pg_catalog.pg_attribute, unnest(attacl) AS acl
WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped
ORDER BY line
"""
)

_OPTIONS = """
SELECT option FROM pg_catalog.pg_class c, unnest(c.reloptions) AS option WHERE c.oid = %(oid)s
UNION ALL
SELECT 'toast.' || option
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid,
     unnest(t.reloptions) AS option
WHERE c.oid = %(oid)s
ORDER BY option
"""

_COLUMNS = """
SELECT a.attname,
       concat_ws(' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
                 CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 CASE WHEN a.attcollation <> t.typcollation
                      THEN 'COLLATE ' || a.attcollation::regcollation::text END,
                 CASE a.attidentity WHEN 'a' THEN 'IDENTITY ALWAYS'
                                    WHEN 'd' THEN 'IDENTITY BY DEFAULT' END,
                 CASE a.attgenerated WHEN 's' THEN 'STORED' WHEN 'v' THEN 'VIRTUAL' END,
                 'DEFAULT ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid),
                 CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || a.attstorage::text END,
                 CASE WHEN a.attcompression <> '' THEN 'COMPRESSION ' || a.attcompression::text END,
                 CASE WHEN a.attstattarget >= 0 THEN 'STATISTICS ' || a.attstattarget END,
                 a.attoptions::text)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_CONSTRAINTS = """
SELECT conname, pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint
WHERE conrelid = %(oid)s ORDER BY conname
"""

_INDEXES = """
SELECT i.relname, pg_catalog.pg_get_indexdef(i.oid)
       || CASE WHEN x.indisreplident THEN ' (replica identity)' ELSE '' END
       || CASE WHEN x.indisclustered THEN ' (clustered)' ELSE '' END
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
WHERE x.indrelid = %(oid)s ORDER BY i.relname
"""

_SEQUENCES: LiteralString = (
    """
SELECT c.relname, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin,
                            s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN 'CYCLE' END)
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
WHERE s.seqrelid IN ("""
    + _OWNED
    + """) ORDER BY c.relname
"""
)

_TRIGGERS = """
SELECT tgname, pg_catalog.pg_get_triggerdef(oid) || ' ' || tgenabled::text
FROM pg_catalog.pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal ORDER BY tgname
"""

_COMMENTS = """
SELECT CASE WHEN d.classoid = 'pg_catalog.pg_constraint'::regclass
            THEN 'constraint ' || (SELECT conname FROM pg_catalog.pg_constraint
                                   WHERE oid = d.objoid)
            WHEN d.objsubid > 0
            THEN 'column ' || (SELECT attname FROM pg_catalog.pg_attribute
                               WHERE attrelid = d.objoid AND attnum = d.objsubid)
            WHEN d.objoid = %(oid)s THEN 'table'
            ELSE 'index ' || (SELECT relname FROM pg_catalog.pg_class WHERE oid = d.objoid) END,
       d.description
FROM pg_catalog.pg_description d
WHERE (d.classoid = 'pg_catalog.pg_class'::regclass
       AND (d.objoid = %(oid)s OR d.objoid IN (SELECT indexrelid FROM pg_catalog.pg_index
                                               WHERE indrelid = %(oid)s)))
   OR (d.classoid = 'pg_catalog.pg_constraint'::regclass
       AND d.objoid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = %(oid)s))
ORDER BY 1
"""


def inventory(connection: Connection, oid: int) -> Inventory:
    """Describe the table ``oid``. Raises SchemaDrift where there is none."""

    def lines(query: LiteralString) -> tuple[str, ...]:
        return tuple(row[0] for row in connection.execute(query, {"oid": oid}))

    def pairs(query: LiteralString) -> dict[str, str]:
        return {name: text for name, text in connection.execute(query, {"oid": oid})}

    owner = lines(_OWNER)
    if not owner:
        raise SchemaDrift(f"no table has the OID {oid}", hint="Was it dropped?")
    return Inventory(
        owner=owner[0],
        grants=lines(_GRANTS),
        options=lines(_OPTIONS),
        columns=pairs(_COLUMNS),
        constraints=pairs(_CONSTRAINTS),
        indexes=pairs(_INDEXES),
        sequences=pairs(_SEQUENCES),
        triggers=pairs(_TRIGGERS),
        comments=pairs(_COMMENTS),
    )
