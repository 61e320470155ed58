"""What the table is part of, and what is part of it: where the swap could not keep that as it is."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "inheritance"

_PARENTS = """
SELECT (pg_catalog.pg_identify_object(p.tableoid, p.oid, 0)).identity, p.relkind = 'p',
       i.inhdetachpending, pg_catalog.pg_get_userbyid(p.relowner), current_user,
       pg_catalog.pg_has_role(current_user, p.relowner, 'USAGE')
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
WHERE i.inhrelid = %(oid)s ORDER BY i.inhseqno
"""
_DEFAULT = """
SELECT (pg_catalog.pg_identify_object(d.tableoid, d.oid, 0)).identity,
       pg_catalog.pg_get_userbyid(d.relowner), current_user
FROM pg_catalog.pg_inherits i
JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = i.inhparent
JOIN pg_catalog.pg_class d ON d.oid = t.partdefid AND d.oid <> i.inhrelid
WHERE i.inhrelid = %(oid)s AND NOT pg_catalog.pg_has_role(current_user, d.relowner, 'USAGE')
"""
_ONLY_INHERITED = """
SELECT what FROM (
    SELECT 0, attnum::int8, 'column ' || attname FROM pg_catalog.pg_attribute
    WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped
      AND attinhcount > 0 AND NOT attislocal
    UNION ALL
    SELECT 1, oid::int8, 'constraint ' || conname FROM pg_catalog.pg_constraint
    WHERE conrelid = %(oid)s AND contype IN ('c', 'n') AND coninhcount > 0 AND NOT conislocal
) AS parts (kind, number, what)
ORDER BY kind, number LIMIT 1
"""
_CHILDREN = """
SELECT (pg_catalog.pg_identify_object(c.tableoid, c.oid, 0)).identity
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %(oid)s AND NOT c.relispartition ORDER BY c.oid
"""
_TYPED = """
SELECT pg_catalog.format_type(reloftype, NULL) FROM pg_catalog.pg_class
WHERE oid = %(oid)s AND reloftype <> 0
"""


def find(context: CheckContext) -> Iterator[Finding]:
    table = context.table.relation
    parents = context.rows(_PARENTS, oid=table.oid)
    for parent, partitioned, pending, owner, role, may in parents:
        if pending:
            yield Finding(
                NAME,
                f"{table} is being detached from {parent}, and somebody has not come to the end",
                f"ALTER TABLE {parent} DETACH PARTITION {table} FINALIZE first.",
            )
        if not may:
            yield _not_ours(f"{table} is part of {parent}, which belongs to {owner}", owner, role)
        only = [] if partitioned else context.rows(_ONLY_INHERITED, oid=table.oid)
        for (what,) in only:
            yield Finding(
                NAME,
                f"{what} of {table} is there only because {parent} has it; a table that joins "
                "later has it by itself",
                f"If you accept that: BEGIN; ALTER TABLE {table} NO INHERIT {parent}; "
                f"ALTER TABLE {table} INHERIT {parent}; COMMIT.",
            )
    for default, owner, role in context.rows(_DEFAULT, oid=table.oid):
        yield _not_ours(
            f"the swap locks {default}, the default partition beside {table}, which belongs to "
            f"{owner}",
            owner,
            role,
        )
    for (child,) in context.rows(_CHILDREN, oid=table.oid):
        yield Finding(
            NAME,
            f"{child} inherits from {table}, and its rows are not {table}'s own to copy",
            f"ALTER TABLE {child} NO INHERIT {table} first, or use declarative partitions.",
        )
    for (of,) in context.rows(_TYPED, oid=table.oid):
        yield Finding(
            NAME,
            f"{table} is a typed table of {of}",
            f"ALTER TABLE {table} NOT OF first.",
        )


def _not_ours(what: str, owner: str, role: str) -> Finding:
    return Finding(
        NAME,
        f"{what}; {role} is not a member of that role",
        f"Run as {owner}, or GRANT {owner} TO {role}.",
    )
