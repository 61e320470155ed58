"""Security labels (SECURITY LABEL) of the table, its columns and its identities' sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Step
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import column_origins, family
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.sequences import owned_sequences, successors
from restructure.shape.carry.things import Place, attempt
from restructure.shape.table import Table

_FIND = """
SELECT DISTINCT (pg_catalog.pg_identify_object(classoid, objoid, 0)).identity
                || ' (' || provider || ')'
FROM pg_catalog.pg_seclabel
WHERE classoid = 'pg_catalog.pg_class'::regclass AND objoid = ANY(%s::oid[]) ORDER BY 1
"""

_READ = """
SELECT l.provider, l.label, a.attname
FROM pg_catalog.pg_seclabel l
LEFT JOIN pg_catalog.pg_attribute a
  ON a.attrelid = l.objoid AND a.attnum = l.objsubid AND l.objsubid > 0
WHERE l.classoid = 'pg_catalog.pg_class'::regclass AND l.objoid = %s
ORDER BY l.objsubid, l.provider
"""


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name what is labelled. A serial's own sequence stays, with its labels."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    tree += [s.relation.oid for s in owned_sequences(connection, table.relation) if s.identity]
    return [Dependent("security label", name) for (name,) in connection.execute(_FIND, [tree])]


def part(carrying: Carrying) -> Part:
    """Set every label again. Those of a column or a partition that goes go with it."""
    final = {pair.new.oid: pair.final for pair in carrying.pairs}
    schema = carrying.source.relation.schema

    def place(new: Relation) -> Relation:
        return final.get(new.oid) or Relation(new.oid, schema, new.name)

    return Part(up=tuple(step for _, step in _steps(carrying, place)))


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Set each on the shadow: its provider must be loaded and take it."""
    for label, step in _steps(carrying, lambda new: new):
        refused = attempt(carrying, [step.text])
        if refused:
            yield f"{label}: {refused}"


def _steps(carrying: Carrying, place: Callable[[Relation], Relation]) -> Iterator[tuple[str, Step]]:
    for old, new, kind in _labelled(carrying):
        target = place(new)
        columns = Place(carrying)
        for provider, text, column in carrying.connection.execute(_READ, [old.oid]).fetchall():
            heir = columns.heir(column) if column else None
            if column and heir is None:
                continue
            what, name = (
                (sql.SQL("COLUMN"), sql.Identifier(target.schema, target.name, heir))
                if heir
                else (kind, target.identifier)
            )
            label = f"security label of {old}{'.' + column if column else ''} ({provider})"
            yield (
                label,
                Step.of(
                    carrying.connection,
                    sql.SQL("SECURITY LABEL FOR {} ON {} {} IS {}").format(
                        sql.Identifier(provider), what, name, sql.Literal(text)
                    ),
                    lock=f"SHARE UPDATE EXCLUSIVE on {target}",
                    why="same security label as before",
                ),
            )


def _labelled(carrying: Carrying) -> Iterator[tuple[Relation, Relation, sql.SQL]]:
    """Who takes whose labels."""
    for pair in carrying.pairs:
        yield pair.old, pair.new, sql.SQL("TABLE")
    origins = column_origins(carrying.source, carrying.shadow.mapping)
    for giver, taker in successors(
        carrying.connection, carrying.source.relation, carrying.shadow.relation, origins
    ):
        if giver.identity:
            yield giver.relation, taker.relation, sql.SQL("SEQUENCE")


KIND = Kind(
    "security label",
    find,
    how="set again on the new table in the swap",
    hint="Remove it (IS NULL) and set it again afterwards.",
    part=part,
    rehearse=rehearse,
)
