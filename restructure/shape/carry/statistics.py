"""Extended statistics (CREATE STATISTICS): made and filled before the swap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import LiteralString

from psycopg import sql
from psycopg.rows import class_row

from restructure.postgres.connect import Connection
from restructure.postgres.script import Script, Step
from restructure.shape.carry import things
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.kind import Carrying, Kind, Part
from restructure.shape.carry.things import Place, attempt
from restructure.shape.deparse import printed
from restructure.shape.table import Table

_READ = """
SELECT s.oid::int8, s.stxrelid::int8 AS table, n.nspname::text AS schema, s.stxname::text AS name,
       ARRAY(SELECT kind::text FROM unnest(s.stxkind) AS kind) AS kinds,
       ARRAY(SELECT a.attname::text FROM unnest(s.stxkeys::int2[]) WITH ORDINALITY AS k (number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = s.stxrelid AND a.attnum = k.number
             ORDER BY k.place) AS columns,
       coalesce(pg_catalog.pg_get_statisticsobjdef_expressions(s.oid), '{}') AS expressions,
       coalesce(s.stxstattarget, -1)::int4 AS target,
       pg_catalog.pg_get_userbyid(s.stxowner)::text AS owner,
       pg_catalog.obj_description(s.oid, 'pg_statistic_ext') AS comment,
       'extended statistics ' || (pg_catalog.pg_identify_object(s.tableoid, s.oid, 0)).identity AS label
FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
WHERE s.stxrelid = ANY(%(tree)s::oid[])
ORDER BY array_position(%(tree)s::oid[], s.stxrelid), n.nspname, s.stxname
"""

_KINDS: dict[str, LiteralString] = {"d": "ndistinct", "f": "dependencies", "m": "mcv"}
"""Those on an expression alone ("e") come by themselves."""


@dataclass(frozen=True, slots=True)
class Extended:
    """One statistics object. A negative ``target`` is the default."""

    oid: int
    table: int
    schema: str
    name: str
    kinds: list[str]
    columns: list[str]
    expressions: list[str]
    target: int
    owner: str
    comment: str | None
    label: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def definition(self) -> tuple[int, list[str], list[str], list[str]]:
        return self.table, sorted(self.kinds), sorted(self.columns), self.expressions


@dataclass(frozen=True, slots=True)
class _Fate:
    """``ahead`` are to be made (the old one, the wanted one), ``own`` are the plan's, which win
    by name. ``waiting`` is what was made ahead already.
    """

    old: list[Extended]
    ahead: list[tuple[Extended, Extended]]
    own: list[Extended]
    waiting: dict[str, Extended]


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "extended statistics")


def ahead(script: Script, carrying: Carrying) -> None:
    """Make them on the shadow, to be filled by its ANALYZE.

    They wait in the retired schema, for in the shadow's the plan may have made its own.
    """
    fate = _fate(carrying)
    unfit = {old.label for old, _ in _unfit(carrying, fate)}
    wanted = {new.name: new for old, new in fate.ahead if old.label not in unfit}
    for name, present in fate.waiting.items():
        if name not in wanted or wanted[name].definition != present.definition:
            script.run(
                sql.SQL("DROP STATISTICS {}").format(present.identifier),
                lock=f"SHARE UPDATE EXCLUSIVE on {carrying.shadow.relation}",
                why="the source has them no more, or others",
            )
    if wanted:
        _make_schema(script, carrying.names.retired_schema)
    for new in wanted.values():
        made = fate.waiting.get(new.name)
        same = made is not None and made.definition == new.definition
        for statement in _statements(carrying, new, made if same else None):
            script.run(
                statement,
                lock=f"SHARE UPDATE EXCLUSIVE on {carrying.shadow.relation}",
                why="same extended statistics as the source, filled before the swap",
            )


def part(carrying: Carrying) -> Part:
    """Drop the old ones, move the new ones in. Raises OperatorNeeded where one cannot be."""
    fate = _fate(carrying)
    things.refuse(f"{old.label}: {reason}" for old, reason in _unfit(carrying, fate))
    schemas = {old.name: old.schema for old in fate.old}
    moves = [(new, schemas[new.name]) for _, new in fate.ahead]
    moves += [(own, schemas.get(own.name, carrying.source.relation.schema)) for own in fate.own]

    def step(statement: sql.Composed, why: str) -> Step:
        return Step.of(carrying.connection, statement, lock="none", why=why)

    return Part(
        down=tuple(
            step(
                sql.SQL("DROP STATISTICS {}").format(old.identifier),
                f"{old.label}: of the old rows",
            )
            for old in fate.old
        ),
        up=tuple(
            step(
                sql.SQL("ALTER STATISTICS {} SET SCHEMA {}").format(
                    new.identifier, sql.Identifier(schema)
                ),
                "the new table has its own, filled already",
            )
            for new, schema in moves
        ),
    )


def rehearse(carrying: Carrying) -> Iterator[str]:
    """Say which cannot be made on the shadow, and why."""
    fate = _fate(carrying)
    unfit = _unfit(carrying, fate)
    yield from (f"{old.label}: {reason}" for old, reason in unfit)
    labels = {old.label for old, _ in unfit}
    schema = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(
        sql.Identifier(carrying.names.retired_schema)
    )
    for old, new in fate.ahead:
        if old.label not in labels:
            statements = [schema, *_statements(carrying, new, None)]
            texts = [statement.as_string(carrying.connection) for statement in statements]
            refused = attempt(carrying, texts)
            if refused:
                yield f"{old.label}: {refused}"


def _make_schema(script: Script, schema: str) -> None:
    known = script.connection.execute("SELECT to_regnamespace(quote_ident(%s))", [schema])
    if known.fetchone() == (None,):
        script.run(
            sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
            lock="none",
            why="extended statistics wait in it for the swap",
        )


def _fate(carrying: Carrying) -> _Fate:
    place = Place(carrying)
    taken = {pair.old.oid: pair.new.oid for pair in carrying.pairs}
    old = _read(carrying, carrying.tree["tree"])
    new = _read(carrying, [member.relation.oid for member in carrying.new])
    waits = carrying.names.retired_schema
    own = [extended for extended in new if extended.schema != waits]
    winners = {extended.name for extended in own}
    wanted = [
        replace(
            extended,
            table=taken.get(extended.table, 0),
            schema=waits,
            columns=[place.heir(column) or column for column in extended.columns],
        )
        for extended in old
    ]
    ahead = [pair for pair in zip(old, wanted, strict=True) if pair[0].name not in winners]
    return _Fate(old, ahead, own, {e.name: e for e in new if e.schema == waits})


def _unfit(carrying: Carrying, fate: _Fate) -> list[tuple[Extended, str]]:
    """Which cannot be carried, as far as catalogs tell."""
    place = Place(carrying)
    found = []
    names: set[str] = set()
    for old, new in fate.ahead:
        gone = next((column for column in old.columns if place.heir(column) is None), None)
        if not new.table:
            found.append((old, "the new table has no partition of that name"))
        elif old.name in names:
            found.append((old, "another one of the table has the same name"))
        elif gone is not None:
            found.append((old, f"it uses column {gone}, which the new table does not have"))
        elif old.expressions:
            changed = place.changed_column("pg_statistic_ext", old.oid)
            found += [(old, changed)] if changed else []
        names.add(old.name)
    return found


def _read(carrying: Carrying, tables: list[int]) -> list[Extended]:
    with carrying.relative(), carrying.connection.cursor(row_factory=class_row(Extended)) as cursor:
        return cursor.execute(_READ, {"tree": tables}).fetchall()


def _statements(carrying: Carrying, new: Extended, made: Extended | None) -> Iterator[sql.Composed]:
    """What makes ``new``, or what makes ``made`` like it."""
    if made is None:
        yield _create(carrying, new)
    if made is None or made.owner != new.owner:
        yield from _own(carrying, new)
    if new.target != (made.target if made else -1):
        yield sql.SQL("ALTER STATISTICS {} SET STATISTICS {}").format(
            new.identifier, sql.Literal(new.target)
        )
    if new.comment != (made.comment if made else None):
        yield sql.SQL("COMMENT ON STATISTICS {} IS {}").format(
            new.identifier, sql.Literal(new.comment)
        )


def _create(carrying: Carrying, new: Extended) -> sql.Composed:
    relation = next(m.relation for m in carrying.new if m.relation.oid == new.table)
    columns = [sql.Identifier(column) for column in new.columns]
    expressions = [sql.SQL("({})").format(printed(text)) for text in new.expressions]
    kinds = [sql.SQL(_KINDS[kind]) for kind in new.kinds if kind in _KINDS]
    alone = len(columns) + len(expressions) == 1
    return sql.SQL("CREATE STATISTICS {}{} ON {} FROM {}").format(
        new.identifier,
        sql.SQL("" if alone else " ({})").format(sql.SQL(", ").join(kinds)),
        sql.SQL(", ").join([*columns, *expressions]),
        relation.identifier,
    )


def _own(carrying: Carrying, new: Extended) -> Iterator[sql.Composed]:
    """The new owner must have CREATE on the schema (PostgreSQL docs, sql-alterstatistics)."""
    row = carrying.connection.execute(
        "SELECT current_user = %s, coalesce(has_schema_privilege(%s::regrole::oid,"
        " to_regnamespace(quote_ident(%s)), 'CREATE'), false)",
        [new.owner, sql.Identifier(new.owner).as_string(carrying.connection), new.schema],
    ).fetchone()
    ours, creates = row or (False, False)
    schema, owner = sql.Identifier(new.schema), sql.Identifier(new.owner)
    if not ours:
        if not creates:
            yield sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, owner)
        yield sql.SQL("ALTER STATISTICS {} OWNER TO {}").format(new.identifier, owner)


KIND = Kind(
    "extended statistics",
    find,
    how="made on the new table before the swap, so that they are filled then",
    hint="Drop them and create them again afterwards.",
    ahead=ahead,
    part=part,
    rehearse=rehearse,
)
