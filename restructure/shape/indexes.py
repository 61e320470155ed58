"""Indexes and their constraints: read as PostgreSQL prints them, made again elsewhere or later."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.deparse import canonical, printed


@dataclass(frozen=True, slots=True)
class Index:
    """One index. ``tail`` is its definition behind the table's name.

    For a constraint ``tail`` is what follows ADD CONSTRAINT name. ``parent`` is the index of the
    partitioned table above that this one is attached to.
    """

    oid: int
    table: int
    name: str
    constraint: str | None
    unique: bool
    tail: str
    on_partitioned: bool
    parent: int | None
    replica_identity: bool
    clustered: bool
    comment: str | None
    constraint_comment: str | None
    statistics: list[list[int]]

    def create(self, table: Relation, *, named: bool = True) -> sql.Composed:
        """The statement that makes it on ``table``; on a partitioned one, on it alone.

        Partitions get theirs one by one, under their own names, and are then attached. Not
        ``named``, PostgreSQL finds a name.
        """
        name: sql.Composable = sql.Identifier(self.constraint or self.name)
        only = sql.SQL("ONLY " if self.on_partitioned else "")
        if self.constraint is not None:
            form = sql.SQL("ALTER TABLE {only}{table} ADD {name} {tail}")
            name = sql.SQL("CONSTRAINT ") + name
        elif self.unique:
            form = sql.SQL("CREATE UNIQUE INDEX {name} ON {only}{table} {tail}")
        else:
            form = sql.SQL("CREATE INDEX {name} ON {only}{table} {tail}")
        if not named:
            name = sql.SQL("")
        return form.format(name=name, only=only, table=table.identifier, tail=printed(self.tail))

    def drop(self, table: Relation) -> sql.Composed:
        """The statement that removes it, and what is attached to it, from ``table``."""
        if self.constraint is not None:
            return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
                table.identifier, sql.Identifier(self.constraint)
            )
        return sql.SQL("DROP INDEX {}").format(sql.Identifier(table.schema, self.name))

    def attach(self, table: Relation, parent: Index, above: Relation) -> sql.Composed:
        """The statement that attaches it to ``parent``, which is on ``above``."""
        return sql.SQL("ALTER INDEX {} ATTACH PARTITION {}").format(
            sql.Identifier(above.schema, parent.name), sql.Identifier(table.schema, self.name)
        )

    def settings(self, table: Relation) -> list[sql.Composed]:
        """Statements for its marks, statistics targets and comments, once it is there."""
        itself = sql.Identifier(table.schema, self.name)
        made: list[sql.Composed] = [
            sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}").format(itself, number, goal)
            for number, goal in (map(sql.Literal, pair) for pair in self.statistics)
        ]
        if self.replica_identity:
            made.append(
                sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}").format(
                    table.identifier, sql.Identifier(self.name)
                )
            )
        if self.clustered:
            made.append(
                sql.SQL("ALTER TABLE {} CLUSTER ON {}").format(
                    table.identifier, sql.Identifier(self.name)
                )
            )
        if self.comment is not None:
            made.append(
                sql.SQL("COMMENT ON INDEX {} IS {}").format(itself, sql.Literal(self.comment))
            )
        if self.constraint is not None and self.constraint_comment is not None:
            made.append(
                sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
                    sql.Identifier(self.constraint),
                    table.identifier,
                    sql.Literal(self.constraint_comment),
                )
            )
        return made


def read_indexes(connection: Connection, tables: Sequence[Relation]) -> list[Index]:
    """Every valid index of the tables, in the order of the tables, primary keys first.

    An index that a failed CREATE INDEX CONCURRENTLY left invalid is passed over, as pg_dump does.
    """
    oids = [table.oid for table in tables]
    with canonical(connection), connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(_INDEXES, {"tables": oids}).fetchall()


def index_beginning_with(
    connection: Connection, table: int, columns: Collection[int]
) -> int | None:
    """The OID of the best index whose first columns are these (attribute numbers), in any order.

    Best is the unique one with these alone, then the primary key, then any unique one; last a
    unique one over some of them, which finds one row too.
    """
    row = connection.execute(
        _BEGINNING, {"table": table, "columns": sorted(columns), "count": len(columns)}
    ).fetchone()
    return None if row is None else int(row[0])


_BEGINNING = """
SELECT i.indexrelid::int8
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_am m ON m.oid = x.relam
WHERE i.indrelid = %(table)s AND i.indpred IS NULL AND (i.indisvalid OR x.relkind = 'I')
  AND (m.amname = 'btree' OR m.amname = 'hash' AND %(count)s = 1)
  AND (i.indisunique OR i.indnkeyatts >= %(count)s)
  AND (SELECT array_agg(number ORDER BY number)
       FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, position)
       WHERE position <= least(%(count)s, i.indnkeyatts)) <@ %(columns)s::int2[]
  AND NOT EXISTS (  -- an index in another collation does not serve the column's own equality
      SELECT FROM unnest(i.indkey::int2[], i.indcollation::oid[]) WITH ORDINALITY
                  AS k (number, collation_oid, position)
      JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
      WHERE position <= %(count)s AND k.collation_oid <> a.attcollation)
ORDER BY i.indnkeyatts >= %(count)s DESC,
         (i.indisunique AND i.indnkeyatts = %(count)s) DESC, i.indisprimary DESC,
         i.indisunique DESC, i.indnkeyatts, i.indexrelid
LIMIT 1
"""

_OPTIONS = """(SELECT string_agg(quote_ident(split_part(o, '=', 1)) || '='
                                 || quote_literal(substr(o, strpos(o, '=') + 1)), ', ')
               FROM unnest(x.reloptions) AS o)"""

# pg_get_indexdef leaves out the tablespace, and pg_get_constraintdef of a key also the options
# (ruleutils.c: only pg_dump's own form has them), so both are put in where the grammar wants them:
# before WHERE and before DEFERRABLE, whose texts are known exactly.
_INDEXES = f"""
WITH found AS (
    SELECT i.*, x.relname AS index_name, x.relkind AS index_kind, c.relname AS table_name,
           c.relkind AS table_kind, n.nspname, k.oid AS constraint_oid, k.conname, k.contype,
           array_position(%(tables)s::oid[], i.indrelid) AS place,
           CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
                ELSE pg_get_constraintdef(k.oid) END AS definition,
           coalesce(CASE WHEN k.oid IS NULL THEN ' WHERE ' || pg_get_expr(i.indpred, i.indrelid)
                         ELSE ' WHERE (' || pg_get_expr(i.indpred, i.indrelid) || ')' END, '')
           || CASE WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END
           || CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' ELSE '' END AS suffix,
           CASE WHEN k.contype IN ('p', 'u') THEN ' WITH (' || {_OPTIONS} || ')' END AS options,
           CASE WHEN k.oid IS NULL THEN ' TABLESPACE ' ELSE ' USING INDEX TABLESPACE ' END
           || quote_ident(s.spcname) AS space
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_class c ON c.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_tablespace s ON s.oid = x.reltablespace
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
                             AND k.contype IN ('p', 'u', 'x')
    WHERE i.indrelid = ANY(%(tables)s::oid[]) AND (i.indisvalid OR x.relkind = 'I')
), whole AS (
    SELECT f.*, left(definition, length(definition) - length(suffix))
                || coalesce(options, '') || coalesce(space, '') || suffix AS full_definition,
           format('CREATE %%sINDEX %%I ON %%s%%I.%%I ',
                  CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END, index_name,
                  CASE WHEN index_kind = 'I' THEN 'ONLY ' ELSE '' END, nspname, table_name) AS head
    FROM found f
)
SELECT indexrelid::int8 AS oid, indrelid::int8 AS table, index_name AS name,
       conname AS constraint, indisunique AS unique,
       CASE WHEN constraint_oid IS NULL THEN substr(full_definition, length(head) + 1)
            ELSE full_definition END AS tail,
       table_kind = 'p' AS on_partitioned,
       (SELECT inhparent::int8 FROM pg_inherits WHERE inhrelid = indexrelid) AS parent,
       indisreplident AS replica_identity, indisclustered AS clustered,
       obj_description(indexrelid, 'pg_class') AS comment,
       obj_description(constraint_oid, 'pg_constraint') AS constraint_comment,
       ARRAY(SELECT ARRAY[attnum::int, attstattarget::int] FROM pg_attribute
             WHERE attrelid = indexrelid AND coalesce(attstattarget, -1) >= 0
             ORDER BY attnum) AS statistics
FROM whole ORDER BY place, indisprimary DESC, index_name
"""
