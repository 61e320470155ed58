"""Memberships in other publications: FOR TABLE follows the OID, so the old table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from psycopg import sql
from psycopg.rows import class_row

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.publication import is_ours
from restructure.postgres.script import Step
from restructure.shape.carry import things
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.things import Place, attempt
from restructure.shape.deparse import printed
from restructure.shape.table import Table

_FIND = """
SELECT DISTINCT p.pubname FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = ANY(%s::oid[]) ORDER BY p.pubname
"""

_READ = """
SELECT r.oid::int8, r.prrelid::int8 AS table, p.pubname::text AS publication,
       p.pubviaroot AS via_root, pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS allowed,
       pg_catalog.pg_get_userbyid(p.pubowner)::text AS owner,
       concat_ws(', ', CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
                 CASE WHEN pubdelete THEN 'delete' END,
                 CASE WHEN pubtruncate THEN 'truncate' END) AS publish,
       coalesce(to_jsonb(p) ->> 'pubgencols', 'n') AS generated,
       CASE WHEN r.prattrs IS NOT NULL THEN
         ARRAY(SELECT a.attname::text FROM unnest(r.prattrs::int2[]) AS k (number)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.number
               ORDER BY k.number) END AS columns,
       pg_catalog.pg_get_expr(r.prqual, r.prrelid) AS filter
FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
WHERE r.prrelid = ANY(%(tree)s::oid[])
ORDER BY p.pubname, array_position(%(tree)s::oid[], r.prrelid)
"""

_BY_SCHEMA = """
SELECT DISTINCT p.pubname::text FROM pg_catalog.pg_publication_namespace s
JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid AND NOT p.pubviaroot
JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid AND c.oid = ANY(%(tree)s::oid[])
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Membership:
    """One table of ours in one publication. Without ``columns`` it publishes all of them."""

    oid: int
    table: int
    publication: str
    via_root: bool
    allowed: bool
    owner: str
    publish: str
    generated: str
    columns: list[str] | None
    filter: str | None


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them, but for those of our own jobs, which follow the table that they were made for."""
    tree = [member.relation.oid for member in family(connection, table.relation)]
    names = [name for (name,) in connection.execute(_FIND, [tree]).fetchall()]
    return [Dependent("publication", name) for name in names if not is_ours(connection, name)]


def part(carrying: Carrying) -> Part:
    """Take the old tables out and put the new ones in. Raises OperatorNeeded where that would
    break what subscribers get.
    """
    memberships = _read(carrying)
    things.refuse(_reasons(carrying, memberships))
    place = Place(carrying)
    finals = {pair.old.oid: pair.final for pair in carrying.pairs}
    old = {member.relation.oid: member.relation for member in carrying.old}
    return Part(
        down=tuple(
            _step(
                carrying,
                sql.SQL("ALTER PUBLICATION {} DROP TABLE ONLY {}").format(
                    sql.Identifier(one.publication), old[one.table].identifier
                ),
                old[one.table],
            )
            for one in memberships
        ),
        up=tuple(
            _step(
                carrying,
                sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(
                    sql.Identifier(one.publication), _member(place, one, finals[one.table])
                ),
                finals[one.table],
            )
            for one in memberships
        ),
    )


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Publish the shadow in the same way by a publication that nobody sees, and plan writes to it.

    That is where the server compares replica identity, row filter and column list
    (execReplication.c, CheckCmdReplicaIdentity).
    """
    memberships = _read(carrying)
    refused = list(_reasons(carrying, memberships))
    yield from refused
    if refused:
        return
    for name, group in groupby(memberships, lambda one: one.publication):
        reason = attempt(carrying, _trial(carrying, list(group)))
        if reason:
            yield f"publication {name}: {reason}"


def _read(carrying: Carrying) -> list[Membership]:
    connection = carrying.connection
    with carrying.relative(), connection.cursor(row_factory=class_row(Membership)) as cursor:
        found = cursor.execute(_READ, carrying.tree).fetchall()
    names = {one.publication for one in found}
    ours = {name for name in names if is_ours(connection, name)} | {*carrying.names.publications}
    return [one for one in found if one.publication not in ours]


def _reasons(carrying: Carrying, memberships: list[Membership]) -> Iterator[str]:
    place = Place(carrying)
    for one in memberships:
        reason = None if one.allowed else f"only its owner {one.owner} can change it"
        if not place.taken(one.table):
            reason = "it publishes a partition that the new table does not have"
        gone = next((c for c in one.columns or () if place.heir(c) is None), None)
        if gone is not None:
            reason = f"its column list has {gone}, which the new table does not have"
        if one.filter is not None:
            reason = reason or place.changed_column("pg_publication_rel", one.oid)
        if reason:
            yield f"publication {one.publication}: {reason}"
    root = carrying.source.relation.oid
    leaves = {one.publication for one in memberships if one.table == root and not one.via_root}
    leaves |= {name for (name,) in carrying.connection.execute(_BY_SCHEMA, carrying.tree)}
    stranger = _new_leaf(carrying)
    if stranger is not None:
        for name in sorted(leaves):
            yield (
                f"publication {name}: its subscribers would get rows of {stranger}, which they do "
                f"not know; ALTER PUBLICATION {name} SET (publish_via_partition_root = true) would "
                "send them as the table's"
            )


def _new_leaf(carrying: Carrying) -> str | None:
    """A name under which changes were not sent before, where they are sent as the leaves'."""
    known = {member.relation.name for member in carrying.old if not member.partitioned}
    leaves = (member.relation.name for member in carrying.new if not member.partitioned)
    return next((name for name in leaves if name not in known), None)


def _member(place: Place, one: Membership, table: Relation) -> sql.Composed:
    parts: list[sql.Composable] = [sql.SQL("ONLY "), table.identifier]
    if one.columns is not None:
        columns = [sql.Identifier(place.heir(column) or column) for column in one.columns]
        parts.append(sql.SQL(" ({})").format(sql.SQL(", ").join(columns)))
    if one.filter is not None:
        parts.append(sql.SQL(" WHERE ({})").format(printed(one.filter)))
    return sql.Composed(parts)


def _trial(carrying: Carrying, memberships: list[Membership]) -> Iterator[str]:
    place = Place(carrying)
    new = {pair.old.oid: pair.new for pair in carrying.pairs}
    first = memberships[0]
    options = sql.SQL("publish = {}, publish_via_partition_root = {}").format(
        sql.Literal(first.publish), sql.Literal(first.via_root)
    )
    if first.generated != "n":
        options += sql.SQL(", publish_generated_columns = stored")
    trial = sql.Identifier(f"{carrying.names.publication[:50]}_rehearsal")
    create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})").format(
        trial,
        sql.SQL(", ").join(_member(place, one, new[one.table]) for one in memberships),
        options,
    )
    yield create.as_string(carrying.connection)
    for member in carrying.new:
        columns = carrying.connection.execute(_A_COLUMN, [member.relation.oid]).fetchone()
        table = member.relation.identifier
        if columns and not member.partitioned:
            statement = sql.SQL("EXPLAIN UPDATE {} SET {} = DEFAULT WHERE false")
            yield statement.format(table, sql.Identifier(columns[0])).as_string(carrying.connection)
            statement = sql.SQL("EXPLAIN DELETE FROM {} WHERE false")
            yield statement.format(table).as_string(carrying.connection)
    yield sql.SQL("DROP PUBLICATION {}").format(trial).as_string(carrying.connection)


_A_COLUMN = """
SELECT attname FROM pg_catalog.pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1
"""


def _step(carrying: Carrying, statement: sql.Composed, table: Relation) -> Step:
    return Step.of(
        carrying.connection,
        statement,
        lock=f"SHARE UPDATE EXCLUSIVE on {table}",
        why="its subscribers go on with the new table",
    )


KIND = Kind(
    "publication",
    find,
    how="takes the new table instead of the old one in the swap, row filter and columns as before",
    hint="Take the table out of it, and put it in again afterwards.",
    part=part,
    rehearse=rehearse,
)
