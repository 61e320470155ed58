"""A table with a random part of everything, restructured into itself: the dump stays the same.

RESTRUCTURE_EXAMPLES sets how many tables there are, RESTRUCTURE_SEED makes them the same again.
"""

from __future__ import annotations

import os
import random

import psycopg
import pytest
from hypothesis import Phase as Stage
from hypothesis import given, note, seed, settings

from restructure.demo.server import Server
from restructure.model.names import Names
from restructure.phases.removal import remove_schema
from restructure.postgres.script import Script
from restructure.shape.carry.inventory import inventory, require_all
from restructure.shape.carry.kind import Carrying
from restructure.shape.carry.kinds import CARRIED
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.carry.swap import run_swap, swap_steps
from restructure.shape.deparse import printed
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry.build import retire
from tests.carry.dumps import assert_same, entries
from tests.carry.everything import AROUND, BASE, KINDS, ROLES, World, worlds
from tests.fix_server import fresh_database
from tests.pipeline.tool import run_to_live
from tests.shape_workbench import copy, finish, plan

EXAMPLES = int(os.environ.get("RESTRUCTURE_EXAMPLES", "6"))
NAMES = Names.of("job")
OWN = ("altered columns", "constraints", "indexes", "settings", "comments", "ownership",
       "foreign key")  # fmt: skip
"""What belongs to the table itself, and no file of its own carries."""

STAGES = (Stage.generate, Stage.shrink)


def carried() -> tuple[str, ...]:
    known = {*OWN, *(kind.name for kind in CARRIED)}
    return tuple(name for name in KINDS if name in known)


def test_an_identity_restructure_of_any_table_changes_nothing(server: Server) -> None:
    chosen = int(os.environ.get("RESTRUCTURE_SEED", random.randrange(1 << 30)))
    print(f"RESTRUCTURE_SEED={chosen}")
    make_roles(server)

    @seed(chosen)
    @settings(max_examples=EXAMPLES, database=None, phases=STAGES, print_blob=False)
    @given(worlds(server.version, carried()))
    def holds(world: World) -> None:
        note(";\n".join(world.statements))
        with fresh_database(server) as database:
            make(database, world)
            before = entries(server, database)
            swap(database, world)
            assert_same(before, entries(server, database))
            finalize(database)
            assert_same(before, entries(server, database))

    holds()


def test_the_whole_tool_changes_nothing_either(server: Server) -> None:
    chosen = int(os.environ.get("RESTRUCTURE_SEED", random.randrange(1 << 30)))
    print(f"RESTRUCTURE_SEED={chosen}")
    make_roles(server)

    @seed(chosen)
    @settings(max_examples=3, database=None, phases=(Stage.generate,), print_blob=False)
    @given(worlds(server.version, carried()))
    def holds(world: World) -> None:
        note(";\n".join(world.statements))
        with fresh_database(server) as database:
            make(database, world)
            before = entries(server, database)
            run_to_live(database, plan(world.table).source)
            assert_same(before, entries(server, database))

    holds()


PARTS = " PARTITION BY RANGE (a); CREATE TABLE leaf PARTITION OF t DEFAULT"
TABLE = f"CREATE TABLE t ({BASE}, CONSTRAINT the_key PRIMARY KEY (id, a))"
ONCE_WRONG = {
    "a partition's own owner": (TABLE + PARTS, "ALTER TABLE leaf OWNER TO everything_owner"),
    "an owner of the root alone": (TABLE + PARTS, "ALTER TABLE t OWNER TO everything_owner"),
    "a comment on a key that is made after the swap": (
        TABLE + PARTS,
        "ALTER TABLE t ADD CONSTRAINT up FOREIGN KEY (parent) REFERENCES other.parents",
        "COMMENT ON CONSTRAINT up ON t IS 'it''s 100%'",
    ),
    "several publications": (
        TABLE,
        "CREATE PUBLICATION p_one FOR TABLE t; CREATE PUBLICATION p_two FOR TABLE t (id, a)",
    ),
    "an argument in a body": (
        TABLE,
        "CREATE FUNCTION f(n int) RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM t WHERE a > n; END",
    ),
}
"""What random tables have found."""


@pytest.mark.parametrize("case", ONCE_WRONG)
def test_what_was_wrong_once(server: Server, database: str, case: str) -> None:
    make_roles(server)
    world = World("t", "range" if PARTS in ONCE_WRONG[case][0] else "plain", server.version)
    world.statements += ONCE_WRONG[case]
    make(database, world)
    before = entries(server, database)

    swap(database, world)

    assert_same(before, entries(server, database))


def make_roles(server: Server) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        for role in ROLES:
            known = admin.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            if known is None:
                admin.execute(printed(f"CREATE ROLE {role} BYPASSRLS"))


def make(database: str, world: World) -> None:
    with psycopg.connect(database, autocommit=True) as session:
        session.execute(AROUND)
        for statement in world.statements:
            session.execute(printed(statement))


def swap(database: str, world: World) -> None:
    """All that the tool does to the table, without a stream and without waiting for anybody."""
    with psycopg.connect(database, autocommit=True) as session:
        session.execute("CREATE SCHEMA restructure")
        source = read_table(session, world.table)
        with session.transaction(force_rollback=True):
            shadow = build_shadow(Script(session), source, plan(world.table), NAMES)
            reasons = [reason for _, reason in rehearse(session, source, shadow, NAMES)]
            assert not reasons, reasons
        with session.transaction():
            shadow = build_shadow(Script(session), source, plan(world.table), NAMES)
        copy(session, source, shadow)
        finish(session, shadow, "key", "index")
        prepare_shadow(session, source, shadow, NAMES)
        composed = swap_steps(session, source, shadow, NAMES)
        with session.transaction():
            for step in composed.first:
                session.execute(printed(step.text))
            before = inventory(session, source.relation, NAMES)
            carrying = Carrying.of(session, source, shadow, NAMES)
            run_swap(session, composed)
            require_all(carrying, before, inventory(session, shadow.relation, NAMES))
        retire(session, source)
        finish(session, shadow, "after")
        for aside in composed.later:
            session.execute(printed(aside.statement))


def finalize(database: str) -> None:
    """Nothing that stays may hang on what goes, and all of that goes."""
    with psycopg.connect(database, autocommit=True) as session:
        for schema in (NAMES.retired_schema, NAMES.shadow_schema):
            remove_schema(session, schema)
