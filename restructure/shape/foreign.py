"""Constraints that the shadow must not have while it is filled: foreign keys, and those NOT VALID.

A foreign key on the shadow would make deletes of parents fail for clients; a NOT VALID check would
refuse the very rows for whose sake it was not validated. Both come in the swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

    For a foreign key, ``target`` is the table it references, ``referenced`` its name as it
    stands in the definition.
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
    inherited: bool

    def add(
        self, table: Relation, *, references: str | None = None, unchecked: bool = True
    ) -> sql.Composed:
        """The statement that adds it to ``table``.

        ``references`` takes the place of the referenced table's name; ``unchecked`` leaves the
        rows that are there to :meth:`validate`.
        """
        definition = self.definition
        if references is not None:
            before, found, after = definition.partition(f" REFERENCES {self.referenced}(")
            if not found:
                raise RestructureError(f"cannot read the definition of foreign key {self.name}")
            definition = f"{before} REFERENCES {references}({after}"
        if unchecked and self.to_validate:
            definition += " NOT VALID"
        return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
            table.identifier, sql.Identifier(self.name), printed(definition)
        )

    @property
    def to_validate(self) -> bool:
        """Whether it held for all rows, and so has to be validated after it was added again."""
        return self.kind == "f" and self.enforced and self.validated

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
        parents[target] = _stand_in(script, schema, target, keys)
    yield parents
    script.run(
        sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)),
        lock="none",
        why="the stand-ins have served",
    )


def _stand_in(script: Script, schema: str, target: int, keys: Sequence[LateConstraint]) -> Relation:
    connection = script.connection
    with canonical(connection):
        columns = connection.execute(_REFERENCED_COLUMNS, {"table": target}).fetchall()
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
        why="an empty table that stands in for a referenced one",
    )
    row = connection.execute(
        "SELECT %s::regclass::oid::int8", [table.as_string(connection)]
    ).fetchone()
    assert row is not None
    return Relation(row[0], schema, name)


_LATE = """
SELECT k.oid::int8 AS oid, k.conrelid::int8 AS table, k.conname AS name, k.contype::text AS kind,
       pg_get_constraintdef(k.oid) AS definition, k.convalidated AS validated,
       coalesce((to_jsonb(k) ->> 'conenforced')::bool, true) AS enforced,
       k.confrelid::int8 AS target,
       coalesce((SELECT format('%%I.%%I', n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = k.confrelid), '') AS referenced,
       k.conparentid <> 0 OR k.coninhcount > 0 AS inherited
FROM pg_constraint k
WHERE k.conrelid = ANY(%(tables)s::oid[])
  AND (k.contype = 'f' OR k.contype IN ('c', 'n') AND NOT k.convalidated
       AND coalesce((to_jsonb(k) ->> 'conenforced')::bool, true))
ORDER BY array_position(%(tables)s::oid[], k.conrelid), k.conname
"""

_REFERENCED_COLUMNS = """
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
