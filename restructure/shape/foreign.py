"""Constraints that the shadow must not have while it is filled: foreign keys, and those NOT VALID.

A foreign key on the shadow would make deletes of parents fail for clients; a NOT VALID check would
refuse the very rows for whose sake it was not validated. Both come in the swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from restructure.errors import RestructureError
from restructure.model.names import Names
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.deparse import canonical, printed


@dataclass(frozen=True, slots=True)
class LateConstraint:
    """A foreign key, or a constraint NOT VALID. ``definition`` is what follows its name.

    For a foreign key, ``target`` is the table it references, ``referenced`` its name and
    ``referenced_keys`` its columns as they stand in the definition; ``keys`` are their names.
    ``parent`` is the constraint of the partitioned table above that it was made for, or 0. A check
    that the first table has from one above all is no ``inherited`` one: the shadow has nothing above.
    """

    oid: int
    table: int
    name: str
    kind: str  # pg_constraint.contype: 'f', 'c' or 'n'
    definition: str
    validated: bool
    enforced: bool
    target: int
    referenced: str
    referenced_keys: str
    keys: list[str]
    period: bool
    inherited: bool
    parent: int
    comment: str | None

    def add(
        self,
        table: Relation,
        *,
        references: str | None = None,
        columns: Mapping[str, str] | None = None,
        unchecked: bool = True,
    ) -> sql.Composed:
        """The statement that adds it to ``table``.

        ``references`` takes the place of the referenced table's name, and ``columns`` says what
        its columns are called there; ``unchecked`` leaves the rows that are there to
        :meth:`validate`.
        """
        definition = self.definition
        if references is not None:
            definition = self._pointing_to(references, columns)
        if unchecked and self.to_validate:
            definition += " NOT VALID"
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
            table.identifier, sql.Identifier(self.name), printed(definition)
        )

    @property
    def to_validate(self) -> bool:
        """Whether it held for all rows, and so has to be validated after it was added again."""
        return self.kind == "f" and self.enforced and self.validated

    def _pointing_to(self, table: str, columns: Mapping[str, str] | None) -> str:
        before, found, after = self.definition.partition(
            f" REFERENCES {self.referenced}({self.referenced_keys})"
        )
        if not found:
            raise RestructureError(f"cannot read the definition of foreign key {self.name}")
        if columns is None:
            return f"{before} REFERENCES {table}({self.referenced_keys}){after}"
        keys = [sql.Identifier(columns.get(key, key)).as_string(None) for key in self.keys]
        if self.period:
            keys[-1] = f"PERIOD {keys[-1]}"
        return f"{before} REFERENCES {table}({', '.join(keys)}){after}"

    def remark(self, table: Relation) -> sql.Composed | None:
        """The statement that gives it its comment, where it has one."""
        if self.comment is None:
            return None
        return sql.SQL("COMMENT ON CONSTRAINT {} ON {} IS {}").format(
            sql.Identifier(self.name), table.identifier, sql.Literal(self.comment)
        )

    def drop(self, table: Relation) -> sql.Composed:
        """The statement that removes it."""
        return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            table.identifier, sql.Identifier(self.name)
        )

    def validate(self, table: Relation) -> sql.Composed:
        """The statement that looks at the rows: SHARE UPDATE EXCLUSIVE, clients go on."""
        return sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
            table.identifier, sql.Identifier(self.name)
        )


def read_late_constraints(
    connection: Connection, tables: Sequence[Relation]
) -> list[LateConstraint]:
    """Foreign keys that the tables have, and their checks and NOT NULLs that are NOT VALID.

    Inherited ones are marked, so that each is made once. Raises nothing.
    """
    oids = [table.oid for table in tables]
    with canonical(connection), connection.cursor(row_factory=class_row(LateConstraint)) as cursor:
        return cursor.execute(_LATE, {"tables": oids}).fetchall()


def read_inbound_keys(connection: Connection, tables: Sequence[Relation]) -> list[LateConstraint]:
    """Foreign keys of other tables that point to one of ``tables``, the oldest first.

    One of a partitioned table is followed by those that its partitions have by it, parents first.
    """
    oids = [table.oid for table in tables]
    with canonical(connection), connection.cursor(row_factory=class_row(LateConstraint)) as cursor:
        return cursor.execute(_INBOUND, {"tables": oids}).fetchall()


def not_implied(keys: Sequence[LateConstraint]) -> list[LateConstraint]:
    """Which of the foreign keys of a partitioned table must be added by themselves, in this order.

    ``keys`` begins with the root's. Adding the one of a table above gives a partition its own,
    under the same name, unless it has one like it already: that is adopted, and keeps its name.
    """
    names = {key.oid: key.name for key in keys}
    own = [k for k in keys if not k.inherited or names.get(k.parent, k.name) != k.name]
    return own[::-1]


@contextmanager
def standing_in(
    script: Script, keys: Sequence[LateConstraint], itself: dict[int, Relation], names: Names
) -> Iterator[dict[int, Relation]]:
    """Make empty stand-ins for referenced tables, so that no lock on the real ones is needed.

    ADD FOREIGN KEY locks both tables in SHARE ROW EXCLUSIVE and DROP in ACCESS EXCLUSIVE mode
    (PostgreSQL docs, sql-altertable). The clone must have its foreign keys while ``alter`` is
    applied, for a clause may drop or rename them or their columns, and not a moment longer.
    ``itself`` are tables of the clone that stand in for those of the source. Yields who stands in
    for whom.
    """
    wanted = sorted({key.target for key in keys} - itself.keys())
    if not wanted:
        yield dict(itself)
        return
    schema = names.shadow_schema + "_parents"
    script.run(
        sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
        lock="none",
        why="stand-ins for the tables that foreign keys reference, dropped again below",
    )
    parents = dict(itself)
    for target in wanted:
        parents[target] = stand_in(script, schema, target, keys)
    yield parents
    script.run(
        sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)),
        lock="none",
        why="the stand-ins have served",
    )


def stand_in(
    script: Script, schema: str, target: int, keys: Sequence[LateConstraint] = ()
) -> Relation:
    """Make an empty table in ``schema`` with the columns of ``target`` and what ``keys`` need.

    Reads catalogs only: no lock on ``target``.
    """
    connection = script.connection
    with canonical(connection):
        columns = connection.execute(_TYPED_COLUMNS, {"table": target}).fetchall()
        uniques = connection.execute(
            _REFERENCED_KEYS, {"table": target, "keys": [key.oid for key in keys]}
        ).fetchall()
    name = f"p{target}"
    parts = [
        sql.SQL("{} {}").format(sql.Identifier(column), printed(type_sql))
        for column, type_sql in columns
    ]
    parts += [sql.SQL("UNIQUE ({})").format(printed(unique)) for (unique,) in uniques]
    table = sql.Identifier(schema, name)
    script.run(
        sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(parts)),
        lock="none",
        why="an empty table that stands in for another",
    )
    row = connection.execute(
        "SELECT %s::regclass::oid::int8", [table.as_string(connection)]
    ).fetchone()
    assert row is not None
    return Relation(row[0], schema, name)


_PARTS = """
SELECT k.oid::int8 AS oid, k.conrelid::int8 AS table, k.conname AS name, k.contype::text AS kind,
       pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated,
       coalesce((j.row ->> 'conenforced')::bool, true) AS enforced,
       k.confrelid::int8 AS target,
       coalesce((SELECT format('%%I.%%I', n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = k.confrelid), '') AS referenced,
       coalesce(f.printed, '') AS referenced_keys, coalesce(f.names, '{}') AS keys,
       coalesce((j.row ->> 'conperiod')::bool, false) AS period,
       k.conparentid <> 0
       OR k.coninhcount > 0 AND k.conrelid <> (%(tables)s::oid[])[1] AS inherited,
       k.conparentid::int8 AS parent,
       obj_description(k.oid, 'pg_constraint') AS comment
FROM pg_constraint k CROSS JOIN LATERAL (SELECT to_jsonb(k)) AS j (row)
CROSS JOIN LATERAL (
    SELECT string_agg(
               CASE WHEN (j.row ->> 'conperiod')::bool AND u.position = cardinality(k.confkey)
                    THEN 'PERIOD ' ELSE '' END || quote_ident(a.attname), ', ' ORDER BY u.position),
           array_agg(a.attname::text ORDER BY u.position)
    FROM unnest(k.confkey) WITH ORDINALITY AS u (number, position)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number) AS f (printed, names)
"""

# A key to a partitioned table has one more for each of its partitions, which PostgreSQL makes.
_LATE = f"""{_PARTS}
WHERE k.conrelid = ANY(%(tables)s::oid[])
  AND (k.contype = 'f' OR k.contype IN ('c', 'n') AND NOT k.convalidated
       AND coalesce((j.row ->> 'conenforced')::bool, true))
  AND NOT EXISTS (SELECT FROM pg_constraint p
                  WHERE p.oid = k.conparentid AND p.confrelid <> k.confrelid)
ORDER BY array_position(%(tables)s::oid[], k.conrelid), k.conname
"""

_INBOUND = f"""
WITH RECURSIVE found (oid, confrelid, root, level) AS (
    SELECT k.oid, k.confrelid, k.oid, 0 FROM pg_constraint k
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY(%(tables)s::oid[])
      AND k.conrelid <> ALL(%(tables)s::oid[])
    UNION ALL
    SELECT k.oid, k.confrelid, f.root, f.level + 1
    FROM found f JOIN pg_constraint k ON k.conparentid = f.oid AND k.confrelid = f.confrelid)
{_PARTS} JOIN found ON found.oid = k.oid
ORDER BY found.root, found.level, k.conrelid
"""

_TYPED_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod) || coalesce(
    (SELECT ' COLLATE ' || quote_ident(n.nspname) || '.' || quote_ident(o.collname)
     FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
     WHERE o.oid = a.attcollation), '')
FROM pg_attribute a WHERE a.attrelid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

_REFERENCED_KEYS = """
SELECT DISTINCT (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.position)
                 FROM unnest(k.confkey) WITH ORDINALITY AS u (number, position)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number)
       || CASE WHEN (to_jsonb(k) ->> 'conperiod')::bool THEN ' WITHOUT OVERLAPS' ELSE '' END
FROM pg_constraint k WHERE k.oid = ANY(%(keys)s::oid[]) AND k.confrelid = %(table)s
"""
