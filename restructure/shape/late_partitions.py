"""Indexes for partitions that somebody has made while the shadow's own were set aside.

PostgreSQL gives a new partition the indexes of the table above it. During the copy there are none
to give, and a partitioned index, a primary key too, is valid only once every partition has its own.
"""

from __future__ import annotations

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.indexes import read_indexes
from restructure.shape.made import Shadow


def index_late_partition(connection: Connection, shadow: Shadow) -> str | None:
    """Make one index that a partition newer than the shadow lacks; return the partition's name.

    Returns None when none is missing. To be called in a transaction; locks that partition in
    ACCESS EXCLUSIVE mode. Raises what CREATE INDEX raises when the rows do not fit.
    """
    known = [member.oid for member in (shadow.relation, *shadow.branches, *shadow.leaves)]
    row = connection.execute(_LACKING, {"root": shadow.relation.oid, "known": known}).fetchone()
    if row is None:
        return None
    above, late, index_oid, own = Relation(*row[:3]), Relation(*row[3:6]), row[6], row[7]
    (index,) = (index for index in read_indexes(connection, [above]) if index.oid == index_oid)
    if own is None:
        connection.execute(index.create(late, named=False))
        own = _newest(connection, late)
    connection.execute(
        sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
            sql.Identifier(above.schema, index.name), sql.Identifier(late.schema, own)
        )
    )
    return str(late)


def _newest(connection: Connection, table: Relation) -> str:
    """The index that was just made: whoever made another would have to wait for our lock."""
    row = connection.execute(
        "SELECT c.relname FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c"
        " ON c.oid = i.indexrelid WHERE i.indrelid = %s"
        " AND i.xmin = pg_catalog.pg_current_xact_id()::xid",
        [table.oid],
    ).fetchone()
    assert row is not None
    return str(row[0])


_LACKING = """
WITH RECURSIVE tree AS (
    SELECT %(root)s::oid AS parent, NULL::oid AS member, 0 AS level
    UNION ALL
    SELECT h.inhparent, h.inhrelid, t.level + 1
    FROM tree t JOIN pg_catalog.pg_inherits h ON h.inhparent = coalesce(t.member, t.parent))
SELECT a.oid::int8, an.nspname, a.relname, m.oid::int8, mn.nspname, m.relname, p.indexrelid::int8,
       (SELECT k.relname FROM pg_catalog.pg_index x
        JOIN pg_catalog.pg_class k ON k.oid = x.indexrelid
        WHERE p.indisprimary AND x.indrelid = m.oid AND x.indisprimary)
FROM tree t
JOIN pg_catalog.pg_class m ON m.oid = t.member
JOIN pg_catalog.pg_namespace mn ON mn.oid = m.relnamespace
JOIN pg_catalog.pg_class a ON a.oid = t.parent
JOIN pg_catalog.pg_namespace an ON an.oid = a.relnamespace
JOIN pg_catalog.pg_index p ON p.indrelid = t.parent
WHERE m.oid <> ALL(%(known)s::oid[])
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h
                  JOIN pg_catalog.pg_index x ON x.indexrelid = h.inhrelid
                  WHERE h.inhparent = p.indexrelid AND x.indrelid = m.oid)
ORDER BY t.level, m.oid, p.indisprimary DESC, p.indexrelid
LIMIT 1
"""
