"""Tables and shadows made by hand, so that these tests need nothing but the carrying."""

from __future__ import annotations

import subprocess

import psycopg

from restructure.demo.server import Server
from restructure.model.names import Names
from restructure.model.relation import KeyColumn, Relation
from restructure.postgres.script import Script
from restructure.shape.carry.inventory import Held, inventory
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.quiet import quiet
from restructure.shape.carry.swap import run_swap, swap_steps
from restructure.shape.made import SetAside, Shadow
from restructure.shape.mapping import FilledColumn, KeyPair, Mapping
from restructure.shape.table import Column, Table, read_relation

NAMES = Names.of("job")


def relation(connection: psycopg.Connection, name: str) -> Relation:
    row = connection.execute(
        "SELECT c.oid::int8, n.nspname, c.relname FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass",
        [name],
    ).fetchone()
    assert row is not None
    return Relation(*row)


def read(connection: psycopg.Connection, name: str) -> Table:
    """The table ``name`` with the key that its primary key gives it."""
    root = relation(connection, name)
    kind = connection.execute(
        "SELECT relkind, relpersistence, relreplident, coalesce(am.amname, '') FROM pg_class c"
        " LEFT JOIN pg_am am ON am.oid = c.relam WHERE c.oid = %s",
        [root.oid],
    ).fetchone()
    assert kind is not None
    columns = connection.execute(
        "SELECT attnum, attname, atttypid::int8, format_type(atttypid, atttypmod), attnotnull,"
        " attgenerated, attidentity, NULL, NULL FROM pg_attribute"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [root.oid],
    ).fetchall()
    key = connection.execute(
        "SELECT a.attname, a.atttypid::int8, format_type(a.atttypid, -1), NULL"
        " FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(indkey)"
        " WHERE i.indrelid = %s AND i.indisprimary",
        [root.oid],
    ).fetchall()
    leaves = connection.execute(
        "SELECT relid::oid::int8 FROM pg_partition_tree(%s::oid::regclass) WHERE isleaf", [root.oid]
    ).fetchall()
    return Table(
        relation=root,
        relation_kind=kind[0],
        persistence=kind[1],
        access_method=kind[3],
        replica_identity=kind[2],
        columns=tuple(Column(*row) for row in columns),
        key=tuple(KeyColumn(*row) for row in key),
        key_index="",
        leaves=tuple(relation(connection, str(oid)) for (oid,) in leaves) or (root,),
    )


def shadow_of(connection: psycopg.Connection, source: Table, *set_aside: SetAside) -> Shadow:
    """The table of the source's name that the test has made in the shadow schema."""
    root = relation(connection, f"{NAMES.shadow_schema}.{source.relation.name}")
    here = read(connection, f"{NAMES.shadow_schema}.{source.relation.name}")
    names = {column.name for column in here.columns}
    mapping = Mapping(
        filled=tuple(FilledColumn(c.name, c.name) for c in source.columns if c.name in names),
        key=tuple(KeyPair(c.name, c.name, c.type_sql) for c in source.key),
        where=None,
    )
    return Shadow(root, here.leaves, mapping, set_aside)


def set_up(connection: psycopg.Connection, script: str) -> None:
    """Run ``script`` and make the schemas that set-up makes."""
    connection.execute("CREATE SCHEMA restructure")
    connection.execute("CREATE SCHEMA restructure_job")
    connection.execute(script)


def swap(connection: psycopg.Connection, name: str, *set_aside: SetAside) -> Shadow:
    """Prepare, compose, then run all of it in one transaction, as the cutover does, and retire."""
    source = read(connection, name)
    shadow = shadow_of(connection, source, *set_aside)
    prepare_shadow(connection, source, shadow, NAMES, by_create=True)
    composed = swap_steps(connection, source, shadow, NAMES)
    with connection.transaction():
        run_swap(connection, composed)
    retire(connection, source)
    return shadow


def retire(connection: psycopg.Connection, source: Table) -> None:
    """What the job does with the old table first after the swap."""
    with connection.transaction():
        quiet(Script(connection), read_relation(connection, source.relation.oid))


def held(connection: psycopg.Connection, name: str) -> set[Held]:
    """Everything that hangs on the table called ``name`` now."""
    return set(inventory(connection, relation(connection, name), NAMES))


def dump(server: Server, database: str) -> str:
    """``pg_dump --schema-only`` of schema public, without what differs from run to run."""
    done = subprocess.run(
        [server.bin / "pg_dump", "--schema-only", "--schema=public", database],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("--", "\\")))
