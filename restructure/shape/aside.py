"""Take off the empty shadow what would slow or hinder its filling, and say how to put it back."""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.foreign import LateConstraint, read_late_constraints
from restructure.shape.indexes import Index, index_beginning_with, read_indexes
from restructure.shape.made import Moment, SetAside
from restructure.shape.mapping import Mapping
from restructure.shape.table import Table


def set_aside_indexes(script: Script, table: Table, mapping: Mapping) -> list[SetAside]:
    """Remove every index and index-backed constraint; the index of the key comes back first."""
    connection = script.connection
    indexes = {index.oid: index for index in read_indexes(connection, table.tree)}
    tables = {member.oid: member for member in table.tree}
    targets = {pair.target for pair in mapping.key}
    numbers = {column.number for column in table.columns if column.name in targets}
    key = index_beginning_with(connection, table.relation.oid, numbers) if numbers else None
    first = _with_attached(key, indexes)
    aside: list[SetAside] = []
    settings: list[SetAside] = []
    moments: tuple[Moment, Moment] = ("key", "index")
    for moment in moments:
        for index in indexes.values():
            if (index.oid in first) is (moment == "key"):
                aside += _made_again(connection, moment, index, indexes, tables)
                settings += _settings(connection, index, tables[index.table])
    settings += _replica_identities(script, table)
    for index in indexes.values():
        if index.parent is None:  # what is attached to it goes with it
            member = tables[index.table]
            script.run(
                index.drop(member),
                lock=f"ACCESS EXCLUSIVE on {member}",
                why="made after the copy, which is faster",
            )
    return [*aside, *settings]


def set_aside_late(
    script: Script, table: Table, source: Table, stands_for: dict[int, int]
) -> list[SetAside]:
    """Remove foreign keys and constraints NOT VALID, to come back in the swap.

    ``stands_for`` gives the real table for each stand-in. In a partitioned table each leaf gets
    its own foreign key, under the leaf's name for it, and the root's adopts them: in the swap too,
    but before PostgreSQL 18 it cannot be NOT VALID, and so comes when the leaves' are validated,
    and then looks at no row (tryAttachPartitionForeignKey in tablecmds.c).
    """
    late = read_late_constraints(script.connection, table.tree)
    shadows = {member.oid: member for member in table.tree}
    for constraint in late:
        if not constraint.inherited:
            shadow = shadows[constraint.table]
            script.run(
                constraint.drop(shadow),
                lock=f"ACCESS EXCLUSIVE on {shadow}"
                + (f" and {constraint.referenced}" if constraint.kind == "f" else ""),
                why="comes back in the swap",
            )
    return _to_come_back(script.connection, late, table, source, stands_for)


def keys_to_come_back(connection: Connection, table: Table) -> list[SetAside]:
    """The foreign keys that ``table`` loses when it retires, should it come back to where it is."""
    late = read_late_constraints(connection, table.tree)
    keys = [constraint for constraint in late if constraint.kind == "f"]
    return _to_come_back(connection, keys, table, table, {})


def _to_come_back(
    connection: Connection,
    late: list[LateConstraint],
    table: Table,
    source: Table,
    stands_for: dict[int, int],
) -> list[SetAside]:
    unchecked_roots = connection.info.server_version >= 180000
    shadows = {member.oid: member for member in table.tree}
    leaves = {leaf.oid for leaf in table.leaves}
    swap: list[SetAside] = []
    adopting: list[SetAside] = []
    validate: list[SetAside] = []
    roots: list[SetAside] = []
    for constraint in late:
        shadow = shadows[constraint.table]
        final = _final(shadow, table, source)
        references = _referenced(connection, constraint, table, source, stands_for)
        lock = f"SHARE ROW EXCLUSIVE on {final}"
        if references is not None:
            lock += f" and {_plain(connection, constraint, table, source, stands_for)}"
        of_root = constraint.kind == "f" and table.partitioned and constraint.table not in leaves
        if constraint.inherited and (of_root or constraint.kind != "f"):
            continue
        add = constraint.add(final, references=references, unchecked=unchecked_roots or not of_root)
        check = _aside(
            connection, "after", constraint.name, constraint.validate(final), _LOOKING.format(final)
        )
        if not of_root:
            swap.append(_aside(connection, "swap", constraint.name, add, lock))
            validate += [check] if constraint.to_validate else []
        elif unchecked_roots:
            adopting.append(_aside(connection, "swap", constraint.name, add, lock))
            roots += [check] if constraint.to_validate else []
        else:
            roots.append(_aside(connection, "after", constraint.name, add, lock))
            remark = constraint.remark(final)
            if remark is not None:
                lock = f"SHARE UPDATE EXCLUSIVE on {final}"
                roots.append(_aside(connection, "after", constraint.name, remark, lock))
    return [*swap, *adopting, *validate, *roots]


_LOOKING = "SHARE UPDATE EXCLUSIVE on {}, ROW SHARE on the referenced table"


def _with_attached(root: int | None, indexes: dict[int, Index]) -> set[int]:
    found = set() if root is None else {root}
    grown = True
    while grown:
        more = {i.oid for i in indexes.values() if i.parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _made_again(
    connection: Connection,
    moment: Moment,
    index: Index,
    indexes: dict[int, Index],
    tables: dict[int, Relation],
) -> list[SetAside]:
    table = tables[index.table]
    lock = f"{'SHARE' if index.constraint is None else 'ACCESS EXCLUSIVE'} on {table}"
    made = [_aside(connection, moment, index.name, index.create(table), lock)]
    if index.parent is not None:
        parent = indexes[index.parent]
        attach = index.attach(table, parent, tables[parent.table])
        made.append(_aside(connection, moment, index.name, attach, lock))
    return made


def _settings(connection: Connection, index: Index, table: Relation) -> list[SetAside]:
    lock = f"ACCESS EXCLUSIVE on {table}"
    return [
        _aside(connection, "index", index.name, statement, lock)
        for statement in index.settings(table)
    ]


def _replica_identities(script: Script, table: Table) -> list[SetAside]:
    """FULL and NOTHING wait too: FULL would write each old row to the WAL during catch-up."""
    rows = script.connection.execute(
        "SELECT oid::int8, relreplident::text FROM pg_catalog.pg_class"
        " WHERE oid = ANY(%s::oid[]) AND relreplident <> 'd' ORDER BY oid",
        [[member.oid for member in table.tree]],
    ).fetchall()
    members = {member.oid: member for member in table.tree}
    aside: list[SetAside] = []
    for oid, identity in rows:
        form = sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}")
        where = members[oid].identifier
        lock = f"ACCESS EXCLUSIVE on {members[oid]}"
        if identity != "i":  # USING INDEX comes with its index
            word = sql.SQL("FULL" if identity == "f" else "NOTHING")
            again = form.format(where, word)
            aside.append(_aside(script.connection, "index", "replica identity", again, lock))
        script.run(
            form.format(where, sql.SQL("DEFAULT")), lock=lock, why="set again after the copy"
        )
    return aside


def _final(shadow: Relation, table: Table, source: Table) -> Relation:
    """Where a member of the shadow's tree stands after the swap."""
    if shadow.oid == table.relation.oid:
        return source.relation
    same = next((m for m in source.tree if m.name == shadow.name), source.relation)
    return replace(shadow, schema=same.schema)


def _referenced(
    connection: Connection,
    constraint: LateConstraint,
    table: Table,
    source: Table,
    stands_for: dict[int, int],
) -> str | None:
    """The referenced table's final name as SQL; None for what references nothing."""
    if constraint.kind != "f":
        return None
    real = stands_for.get(constraint.target, constraint.target)
    for member in table.tree:
        if member.oid == real:
            return _final(member, table, source).identifier.as_string(connection)
    row = connection.execute(
        "SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s",
        [real],
    ).fetchone()
    assert row is not None
    return str(row[0])


def _plain(
    connection: Connection,
    constraint: LateConstraint,
    table: Table,
    source: Table,
    stands_for: dict[int, int],
) -> str:
    name = _referenced(connection, constraint, table, source, stands_for) or ""
    return name.replace('"', "")


def _aside(
    connection: Connection, moment: Moment, name: str, statement: sql.Composed, lock: str
) -> SetAside:
    return SetAside(moment, name, statement.as_string(connection), lock)
