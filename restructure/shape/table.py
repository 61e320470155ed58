"""A table as the catalogs describe it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import psycopg

from restructure.errors import UsageError
from restructure.model.relation import KeyColumn, Relation
from restructure.postgres.connect import Connection
from restructure.shape.deparse import canonical


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Empty strings and None mean "no"."""

    number: int  # attnum
    name: str
    type_oid: int
    type_sql: str  # format_type with typmod, schema-qualified
    not_null: bool
    generated: str  # '' | 's' stored | 'v' virtual
    identity: str  # '' | 'a' always | 'd' by default
    default_sql: str | None  # also the generation expression
    collation_sql: str | None


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table, or a partitioned one with its leaves.

    ``relation_kind`` is pg_class.relkind ('r' or 'p'; another where checks are to refuse it),
    ``persistence`` relpersistence, ``replica_identity`` relreplident. ``leaves`` of a plain
    table is the table itself. ``branches`` are partitions that are partitioned themselves, parents
    first, the root not among them.
    ``key`` are the columns of the effective replica identity in index order; empty
    where there is no usable one. ``key_index`` is that index's name.
    """

    relation: Relation
    relation_kind: str
    persistence: str
    access_method: str
    replica_identity: str
    columns: tuple[Column, ...]
    key: tuple[KeyColumn, ...]
    key_index: str
    leaves: tuple[Relation, ...]
    branches: tuple[Relation, ...] = ()

    @property
    def partitioned(self) -> bool:
        return self.relation_kind == "p"

    @property
    def tree(self) -> tuple[Relation, ...]:
        """The table and all its partitions, parents first."""
        return (self.relation, *self.branches, *self.leaves) if self.partitioned else self.leaves

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


def read_table(connection: Connection, name: str) -> Table:
    """Describe the table that ``name`` means to this session.

    ``name`` is written as in SQL: with or without a schema, quoted where needed, and resolved
    by the session's search_path. Raises UsageError where there is no such table.
    """
    if "\x00" in name:
        raise UsageError("a table's name cannot hold a NUL character")
    try:
        with connection.transaction():
            row = connection.execute("SELECT to_regclass(%s)::oid::int8", [name]).fetchone()
    except psycopg.errors.DatabaseError as error:
        if error.sqlstate is None or error.sqlstate.startswith(("08", "57")):
            raise
        raise UsageError(
            f"{name!r} cannot be a table's name: {error.diag.message_primary}",
            hint='Write schema.table, and "Quoted" what is not plain lower case.',
        ) from None
    if row is None or row[0] is None:
        raise UsageError(f"there is no table {name}", hint=_near(connection, name))
    return read_relation(connection, row[0])


def read_relation(connection: Connection, oid: int) -> Table:
    """Describe the relation with this OID. Raises UsageError where there is none."""
    with canonical(connection):
        head = connection.execute(_RELATION, {"oid": oid}).fetchone()
        if head is None:
            raise UsageError(f"there is no table with OID {oid} any more")
        columns = connection.execute(_COLUMNS, {"oid": oid}).fetchall()
        key = connection.execute(_KEY, {"oid": oid}).fetchall()
        members = connection.execute(_TREE, {"oid": oid}).fetchall() if head[2] == "p" else []
    schema, name, kind, persistence, method, identity = head
    relation = Relation(oid, schema, name)
    return Table(
        relation=relation,
        relation_kind=kind,
        persistence=persistence,
        access_method=method or "",
        replica_identity=identity,
        columns=tuple(Column(*row) for row in columns),
        key=tuple(KeyColumn(*row[1:]) for row in key),
        key_index=key[0][0] if key else "",
        leaves=tuple(Relation(*row[1:]) for row in members if row[0] != "p")
        if kind == "p"
        else (relation,),
        branches=tuple(Relation(*row[1:]) for row in members if row[0] == "p"),
    )


_RELATION = """
SELECT n.nspname, c.relname, c.relkind::text, c.relpersistence::text, m.amname,
       c.relreplident::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.oid = %(oid)s
"""

_COLLATION = """(SELECT quote_ident(n.nspname) || '.' || quote_ident(o.collname)
 FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace WHERE o.oid = a.attcollation)"""

_COLUMNS = f"""
SELECT a.attnum, a.attname, a.atttypid::int8, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       a.attgenerated::text, a.attidentity::text, pg_get_expr(d.adbin, d.adrelid), {_COLLATION}
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# What PostgreSQL itself would identify a row by (RelationGetReplicaIndex in relcache.c); under
# FULL, any index that could serve, because then we choose.
_KEY = f"""
WITH chosen AS (
    SELECT i.indexrelid, i.indrelid, i.indkey::int2[] AS keys, i.indnkeyatts
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE i.indrelid = %(oid)s AND i.indisunique AND i.indisvalid AND i.indislive AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident
                              WHEN 'f' THEN true ELSE false END
      AND NOT EXISTS (
          SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
          WHERE k.position <= i.indnkeyatts AND (NOT a.attnotnull OR EXISTS (
              SELECT FROM pg_constraint n WHERE n.conrelid = i.indrelid AND n.contype = 'n'
                AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated)))
    ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
    LIMIT 1)
SELECT x.relname, a.attname, a.atttypid::int8, format_type(a.atttypid, a.atttypmod), {_COLLATION}
FROM chosen CROSS JOIN LATERAL unnest(chosen.keys) WITH ORDINALITY AS k (number, position)
JOIN pg_class x ON x.oid = chosen.indexrelid
JOIN pg_attribute a ON a.attrelid = chosen.indrelid AND a.attnum = k.number
WHERE k.position <= chosen.indnkeyatts
ORDER BY k.position
"""

# pg_partition_tree() would wait for a lock on every member; the catalog does not
_TREE = """
WITH RECURSIVE tree AS (
    SELECT inhrelid, 1 AS level FROM pg_inherits WHERE inhparent = %(oid)s
    UNION ALL
    SELECT i.inhrelid, t.level + 1 FROM pg_inherits i JOIN tree t ON i.inhparent = t.inhrelid)
SELECT c.relkind::text, c.oid::int8, n.nspname, c.relname
FROM tree JOIN pg_class c ON c.oid = tree.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY tree.level, c.oid
"""

_TABLES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$|restructure)'
ORDER BY c.relname LIMIT 5000
"""


def _near(connection: Connection, name: str) -> str:
    """What the writer may have meant: the same name elsewhere, or a similar one."""
    tables = connection.execute(_TABLES).fetchall()
    wanted = name.rsplit(".", 1)[-1].strip('"').lower()
    alike = get_close_matches(wanted, [bare.lower() for _, bare in tables], 3, 0.75)
    found = [full for full, bare in tables if bare.lower() in alike][:5]
    if found:
        return f"Did you mean {' or '.join(found)}?"
    return "Name its schema if search_path does not hold it, and look at the database connected to."
