"""The tables that a table is part of, and whether another one could take its place there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from restructure.errors import NotNow
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.said import passing
from restructure.shape.carry.family import family
from restructure.shape.carry.kind import Carrying
from restructure.shape.deparse import canonical, printed
from restructure.shape.foreign import read_late_constraints
from restructure.shape.indexes import read_indexes

_SCANNED_AT_ONCE = 1 << 20
"""Bytes of a default partition that may be looked at under the lock: about a millisecond's work."""

_LOCK_TIMEOUT = "500ms"


@dataclass(frozen=True, slots=True)
class Above:
    """A table that the source is part of.

    ``bound`` is what follows ATTACH PARTITION, None where the source inherits in the old way.
    ``default`` is the other partition that takes what fits nowhere.
    """

    relation: Relation
    bound: str | None
    default: Relation | None

    def joining(self, parent: Relation, table: Relation) -> sql.Composed:
        """The statement that makes ``table`` a part of ``parent``, as the source is of this."""
        if self.bound is None:
            form = sql.SQL("ALTER TABLE {table} INHERIT {parent}")
        else:
            form = sql.SQL("ALTER TABLE {parent} ATTACH PARTITION {table} {bound}")
        return form.format(
            parent=parent.identifier, table=table.identifier, bound=printed(self.bound or "")
        )


def tables_above(connection: Connection, table: Relation) -> tuple[Above, ...]:
    """The direct parents, in the order in which the columns came from them."""
    with canonical(connection):
        rows = connection.execute(_ABOVE, {"table": table.oid}).fetchall()
    return tuple(
        Above(Relation(*row[:3]), row[3], Relation(*row[4:]) if row[4] else None) for row in rows
    )


def rehearse_joining(carrying: Carrying) -> Iterator[str]:
    """Let the empty shadow join a stand-in for each table above; yield why that cannot be done.

    The bound of each further level is tried alone: a partition must satisfy them all. Takes
    ACCESS SHARE on the tables above. Raises NotNow where that is not had at once.
    """
    connection = carrying.connection
    for above in tables_above(connection, carrying.source.relation):
        yield from _try(carrying, above, above.default)
        level = above
        while level.bound is not None:
            higher = tables_above(connection, level.relation)
            if not higher:
                break
            level = higher[0]
            yield from _try(carrying, level, None)


def _try(carrying: Carrying, above: Above, default: Relation | None) -> list[str]:
    """``default``: the default partition that would be looked at, too."""
    try:
        with carrying.connection.transaction(force_rollback=True):
            carrying.connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
            return list(_tried(carrying, above, default))
    except psycopg.errors.LockNotAvailable as error:
        raise NotNow(
            f"a look at {above.relation} was not had within {_LOCK_TIMEOUT}",
            hint="Somebody changes that table. Run the same command again.",
        ) from error


def _tried(carrying: Carrying, above: Above, default: Relation | None) -> Iterator[str]:
    connection, shadow = carrying.connection, carrying.shadow.relation
    what = "an heir" if above.bound is None else "a partition"
    head = f"as {what} of {above.relation}: "
    parent = _stand_in(carrying, above.relation, "_above")
    _let_hash_count_for(connection, above.relation, parent, shadow)
    if default is not None:
        stands = _stand_in(carrying, default, "_default")
        connection.execute(Above(parent, "DEFAULT", None).joining(parent, stands))
    had = _indexes(connection, shadow)
    notes, error = _joined(connection, above.joining(parent, shadow))
    if error is not None:
        yield head + error
        return
    for index, above_it in sorted(_indexes(connection, shadow).items()):
        if index not in had:
            name = above_it.removeprefix(f"{parent.schema}.")
            yield f"{head}it needs an index for {name} there, or one is built under the lock"
    scanned = {line.removeprefix(_SCAN).strip('"') for line in notes if line.startswith(_SCAN)}
    names = {member.relation.name for member in carrying.new}
    if scanned & names:
        yield (
            f"{head}no CHECK can prove to PostgreSQL that all rows fit, for the partition key is of "
            "a domain or has a collation of its own; they would be looked at under the lock"
        )
    if default is not None and default.name in scanned - names:
        yield from _default_is_scanned(carrying, default, head)


def _default_is_scanned(carrying: Carrying, default: Relation, head: str) -> Iterator[str]:
    connection = carrying.connection
    oids = [member.relation.oid for member in family(connection, default)]
    with canonical(connection):
        row = connection.execute(
            "SELECT sum(pg_relation_size(oid))::int8, pg_get_partition_constraintdef(%s::oid)"
            " FROM unnest(%s::oid[]) AS oid",
            [carrying.shadow.relation.oid, oids],
        ).fetchone()
    if row is None or row[0] <= _SCANNED_AT_ONCE:
        return
    change = f"ALTER TABLE {default.identifier.as_string(connection)}"
    name = sql.Identifier(f"not_{carrying.source.relation.name}"[:63]).as_string(connection)
    yield (
        f"{head}its default partition {default} would be looked at under the lock; a constraint "
        f"spares that: {change} ADD CONSTRAINT {name} CHECK (NOT {row[1]}) NOT VALID; "
        f"{change} VALIDATE CONSTRAINT {name}"
    )


def _stand_in(carrying: Carrying, table: Relation, suffix: str) -> Relation:
    """An empty table like ``table``, partitioned as it is unless it is a default partition."""
    connection = carrying.connection
    schema = carrying.names.shadow_schema + suffix
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    parent = suffix == "_above"
    with canonical(connection):
        row = connection.execute(
            "SELECT pg_get_partkeydef(oid) FROM pg_class WHERE oid = %s AND relkind = 'p'",
            [table.oid],
        ).fetchone()
    name = sql.Identifier(schema, table.name)
    key = sql.SQL(" PARTITION BY {}").format(printed(row[0])) if parent and row else sql.SQL("")
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING CONSTRAINTS INCLUDING GENERATED){}").format(
            name, table.identifier, key
        )
    )
    made = connection.execute(
        "SELECT %s::regclass::oid::int8", [name.as_string(connection)]
    ).fetchone()
    assert made is not None
    stand_in = Relation(made[0], schema, table.name)
    for constraint in read_late_constraints(connection, [table]):
        if constraint.kind != "f":  # LIKE makes it valid: it comes to the new table in the swap
            connection.execute(constraint.drop(stand_in))
    if parent and row:
        for index in read_indexes(connection, [table]):
            connection.execute(index.create(stand_in))
    return stand_in


def _let_hash_count_for(
    connection: Connection, real: Relation, stand_in: Relation, shadow: Relation
) -> None:
    """A hash partition's constraint names the table above by its OID: say it of the stand-in too."""
    rows = connection.execute(_HASHED, {"table": shadow.oid, "real": f"'{real.oid}'::oid"})
    for (demand,) in rows.fetchall():
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CHECK ({})").format(
                shadow.identifier,
                printed(demand.replace(f"'{real.oid}'::oid", f"'{stand_in.oid}'::oid")),
            )
        )


def _joined(connection: Connection, statement: sql.Composed) -> tuple[list[str], str | None]:
    """What PostgreSQL tells of its work, and why it refuses it."""
    notes: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        notes.append(diagnostic.message_primary or "")

    connection.add_notice_handler(note)
    try:
        with connection.transaction():
            connection.execute("SET LOCAL client_min_messages = debug1")
            connection.execute(statement)
            connection.execute("SET LOCAL client_min_messages = notice")
    except psycopg.DatabaseError as error:
        if passing(error):
            raise
        return notes, " ".join((error.diag.message_primary or str(error)).split())
    finally:
        connection.remove_notice_handler(note)
    return notes, None


def _indexes(connection: Connection, shadow: Relation) -> dict[int, str]:
    """The indexes of the shadow and its partitions, each with the one it is attached to."""
    oids = [member.relation.oid for member in family(connection, shadow)]
    return dict(connection.execute(_INDEXES, [oids]).fetchall())


_SCAN = "verifying table "
"""DEBUG1, never translated (ATRewriteTable in tablecmds.c): rows are about to be looked at."""

_ABOVE = """
SELECT p.oid::int8, n.nspname, p.relname, pg_get_expr(c.relpartbound, c.oid),
       d.oid::int8, dn.nspname, d.relname
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_namespace n ON n.oid = p.relnamespace
LEFT JOIN pg_partitioned_table t ON t.partrelid = p.oid
LEFT JOIN pg_class d ON d.oid = t.partdefid AND d.oid <> c.oid
LEFT JOIN pg_namespace dn ON dn.oid = d.relnamespace
WHERE i.inhrelid = %(table)s ORDER BY i.inhseqno
"""

_HASHED = """
SELECT pg_catalog.pg_get_expr(conbin, conrelid) FROM pg_catalog.pg_constraint
WHERE conrelid = %(table)s AND contype = 'c'
  AND strpos(pg_catalog.pg_get_expr(conbin, conrelid), %(real)s) > 0
"""

_INDEXES = """
SELECT i.indexrelid::int8, coalesce((SELECT p.inhparent::regclass::text
    FROM pg_catalog.pg_inherits p WHERE p.inhrelid = i.indexrelid), '')
FROM pg_catalog.pg_index i WHERE i.indrelid = ANY(%s::oid[])
"""
