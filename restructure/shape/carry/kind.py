"""What a file of this folder that carries one kind of dependent is told, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from restructure.model.names import Names
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.locks import Wanted
from restructure.postgres.script import Script, Step
from restructure.shape.carry.dependents import Dependent
from restructure.shape.carry.family import (
    Member,
    column_heirs,
    counterpart,
    family,
    final_place,
)
from restructure.shape.deparse import canonical, looking_in
from restructure.shape.made import SetAside, Shadow
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class Pair:
    """A member of the source, the one of the shadow that takes its place, and where that will stand."""

    old: Relation
    new: Relation
    final: Relation


@dataclass(frozen=True, slots=True)
class Carrying:
    """The source with its partitions, the shadow with its own, and how names are looked up.

    ``columns`` maps old column to the new one that inherits from it. ``path`` are the schemas in
    which the old table and all that hangs on it lie, the source's first. ``trial``: the shadow is
    empty and will be rolled back, so what takes long is composed only.
    """

    connection: Connection
    source: Table
    shadow: Shadow
    names: Names
    old: tuple[Member, ...]
    new: tuple[Member, ...]
    columns: dict[str, str]
    path: tuple[str, ...]
    trial: bool = False

    @classmethod
    def of(cls, connection: Connection, source: Table, shadow: Shadow, names: Names) -> Carrying:
        """Look up what both are now."""
        old = family(connection, source.relation)
        schemas = [member.relation.schema for member in old]
        schemas += [schema for (schema,) in connection.execute(_SCHEMAS, _tree(old))]
        return cls(
            connection,
            source,
            shadow,
            names,
            old,
            family(connection, shadow.relation),
            column_heirs(source, shadow.mapping),
            tuple(dict.fromkeys(schemas)),
        )

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Who takes whose place, the root first. A new partition takes nobody's."""
        root = self.new[0].relation
        found = [(m.relation, counterpart(m.relation, root, self.old)) for m in self.new]
        return tuple(Pair(old, new, final_place(new, root, self.old)) for new, old in found if old)

    @property
    def tree(self) -> dict[str, Any]:
        """The OIDs of the source and its partitions, as the parameter ``tree`` of a query."""
        return _tree(self.old)

    @contextmanager
    def relative(self) -> Iterator[None]:
        """Within, PostgreSQL prints the names of the table and what hangs on it without a schema.

        One text then means the source before the swap, the new table after it, and the shadow
        where :meth:`staged` looks: a name is bound to what it finds first.
        """
        with canonical(self.connection), looking_in(self.connection, *self.path):
            yield

    @contextmanager
    def staged(self) -> Iterator[None]:
        """Within, the names of such texts mean the shadow and what was made beside it."""
        with looking_in(self.connection, self.names.shadow_schema, *self.path):
            yield

    def look_in_place(self) -> Step:
        """The statement that makes such texts mean what is in place, for the transaction's rest."""
        path = sql.SQL(", ").join(map(sql.Identifier, (*self.path, "pg_temp")))
        return Step.of(
            self.connection,
            sql.SQL("SET LOCAL search_path = {}").format(path),
            lock="none",
            why="the names below are bound to the new table",
        )


@dataclass(frozen=True, slots=True)
class Part:
    """What one kind adds to the swap.

    ``first``: before the source is locked, each locks something of its own.
    ``down``: takes things away while the source is still in its place.
    ``up``: makes them again once the shadow is there, names looked up by Carrying.look_in_place.
    ``later``: after the commit, each in a transaction of its own.
    ``wanted``: the locks on other tables that ``down`` and ``up`` take.
    """

    first: tuple[Step, ...] = ()
    down: tuple[Step, ...] = ()
    up: tuple[Step, ...] = ()
    later: tuple[SetAside, ...] = ()
    wanted: tuple[Wanted, ...] = ()


NOTHING = Part()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of dependent.

    ``find`` names what there is. ``how`` is told by ``plan`` where it is carried, ``hint`` by
    ``check`` where it is not. ``ahead`` makes things on the shadow before the lock, and is
    repeated before every try, so it must do nothing where nothing has changed. ``part`` composes
    what is done in the swap. ``rehearse`` tries on the empty shadow, in a transaction that is
    rolled back, whether that can succeed: it yields a reason for each thing that cannot, and
    touches no other table; without one, the ``up`` of ``part`` is run against the shadow.
    """

    name: str
    find: Callable[[Connection, Table], list[Dependent]]
    how: str = ""
    hint: str = ""
    ahead: Callable[[Script, Carrying], None] | None = None
    part: Callable[[Carrying], Part] | None = None
    rehearse: Callable[[Carrying], Iterator[str]] | None = None

    @property
    def carried(self) -> bool:
        return self.ahead is not None or self.part is not None


_SCHEMAS = """
WITH RECURSIVE hanging (classid, objid) AS (
    SELECT 'pg_catalog.pg_class'::regclass::oid, unnest(%(tree)s::oid[])
    UNION
    SELECT d.*
    FROM hanging h CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = h.classid AND d.refobjid = h.objid
          AND d.classid IN ('pg_catalog.pg_class'::regclass, 'pg_catalog.pg_proc'::regclass,
                            'pg_catalog.pg_type'::regclass, 'pg_catalog.pg_rewrite'::regclass)
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, r.ev_class FROM pg_catalog.pg_rewrite r
        WHERE h.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = h.objid
        UNION ALL  -- a row type is its table's
        SELECT 'pg_catalog.pg_type'::regclass, c.reltype FROM pg_catalog.pg_class c
        WHERE h.classid = 'pg_catalog.pg_class'::regclass AND c.oid = h.objid AND c.reltype <> 0
        UNION ALL  -- and so is the array of it
        SELECT 'pg_catalog.pg_type'::regclass, t.typarray FROM pg_catalog.pg_type t
        WHERE h.classid = 'pg_catalog.pg_type'::regclass AND t.oid = h.objid AND t.typarray <> 0
    ) AS d)
SELECT DISTINCT n.nspname::text FROM hanging h
LEFT JOIN pg_catalog.pg_class c
  ON h.classid = 'pg_catalog.pg_class'::regclass AND c.oid = h.objid AND c.relkind IN ('v', 'm')
LEFT JOIN pg_catalog.pg_proc p
  ON h.classid = 'pg_catalog.pg_proc'::regclass AND p.oid = h.objid
JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, p.pronamespace)
ORDER BY 1
"""


def _tree(members: tuple[Member, ...]) -> dict[str, Any]:
    return {"tree": [member.relation.oid for member in members]}
