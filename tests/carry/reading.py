"""What the tests of things that read the table share: a table, its shadow, and the swap."""

from __future__ import annotations

import subprocess

import psycopg

from restructure.demo.server import Server
from restructure.plan.load import LoadedPlan
from restructure.shape.carry.kinds import REFUSED
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.carry.swap import Swap, run_swap, swap_steps
from restructure.shape.made import Shadow
from restructure.shape.table import Table, read_table
from tests.carry.build import NAMES, retire
from tests.shape_workbench import build, copy, finish, plan

ORDERS = """
CREATE SCHEMA restructure; CREATE SCHEMA report;
CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int, amount numeric
    DEFAULT 0, note text);
INSERT INTO customers VALUES (1, 'one');
INSERT INTO orders (customer, amount, note) SELECT 1, n, 'n' FROM generate_series(1, 5) n;
"""


def made(
    connection: psycopg.Connection, loaded: LoadedPlan | None = None, table: str = "orders"
) -> tuple[Table, Shadow]:
    """The shadow of a plan that asks for nothing, or of another, filled and indexed."""
    source = read_table(connection, table)
    shadow = build(connection, loaded or plan(table), source)
    copy(connection, source, shadow)
    finish(connection, shadow, "key", "index")
    return source, shadow


def composed(connection: psycopg.Connection, source: Table, shadow: Shadow) -> Swap:
    prepare_shadow(connection, source, shadow, NAMES)
    return swap_steps(connection, source, shadow, NAMES)


def run(connection: psycopg.Connection, swap: Swap) -> None:
    """All of it in one transaction, as the cutover does."""
    with connection.transaction():
        for step in swap.first:
            connection.execute(step.text)
        run_swap(connection, swap)


def carry(
    connection: psycopg.Connection, loaded: LoadedPlan | None = None, table: str = "orders"
) -> None:
    source, shadow = made(connection, loaded, table)
    run(connection, composed(connection, source, shadow))
    retire(connection, source)


def reasons(
    connection: psycopg.Connection, loaded: LoadedPlan | None = None, table: str = "orders"
) -> list[str]:
    """What the rehearsal says, after which nothing may be left of it."""
    source = read_table(connection, table)
    shadow = build(connection, loaded or plan(table), source)
    before = everything(connection)
    found = [reason for _, reason in rehearse(connection, source, shadow, NAMES)]
    assert everything(connection) == before
    connection.execute("DROP SCHEMA restructure_job CASCADE")
    return found


def refused(connection: psycopg.Connection, table: str = "orders") -> list[str]:
    source = read_table(connection, table)
    return [found.name for kind in REFUSED for found in kind.find(connection, source)]


def everything(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT oid, relname FROM pg_class WHERE oid >= 16384"
        " UNION ALL SELECT oid, proname FROM pg_proc WHERE oid >= 16384 ORDER BY 1"
    ).fetchall()


def nothing_is_bound_to_the_old_table(connection: psycopg.Connection) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid"
        " JOIN pg_class v ON v.oid = w.ev_class"
        " WHERE d.refobjid = 'restructure_job_retired.orders'::regclass"
        " AND v.relnamespace <> 'restructure_job_retired'::regnamespace"
    ).fetchone()
    return row == (0,)


def whole_dump(server: Server, database: str) -> str:
    """``pg_dump --schema-only`` of all that is not ours, without what differs from run to run."""
    done = subprocess.run(
        [server.bin / "pg_dump", "--schema-only", "--exclude-schema=restructure*", database],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith(("--", "\\")))


def one(connection: psycopg.Connection, query: str) -> object:
    """The first column of the first row."""
    row = connection.execute(query).fetchone()
    return row[0] if row else None
