"""What the swap locks on other tables is known before, so that nobody is waited for in it."""

from __future__ import annotations

import psycopg

from restructure.postgres.locks import MODES
from restructure.postgres.script import Script
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import run_swap, swap_steps
from restructure.shape.shadow import build_shadow
from restructure.shape.table import read_table
from tests.carry import test_policies, test_rules, test_triggers
from tests.carry.build import NAMES
from tests.carry.test_swap import prefix
from tests.shape_workbench import plan

_HELD = """
SELECT relation::int8, relation::regclass::text, mode FROM pg_locks l
JOIN pg_class c ON c.oid = relation AND c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm')
WHERE pid = pg_backend_pid() AND locktype = 'relation' ORDER BY 1
"""


def test_every_lock_of_the_swap_is_wanted(connection: psycopg.Connection) -> None:
    name = prefix(connection)
    connection.execute((test_policies.PLAIN + test_policies.COMMON).format(p=name))
    rest = test_triggers.PLAIN.replace("CREATE SCHEMA restructure;", "") + test_triggers.COMMON
    rest += test_rules.RULES.replace("seen", "seen_too").replace("side.other", "far_other")
    connection.execute(
        "CREATE TABLE seen_too (what text); CREATE TABLE far_other (id int);"
        'CREATE TABLE "Other t" (id int); ALTER TABLE t ADD c text;'
        + rest.replace("CREATE TABLE t (id int PRIMARY KEY, a int DEFAULT 1, c text);", "")
    )
    source = read_table(connection, "public.t")
    with connection.transaction():
        shadow = build_shadow(Script(connection), source, plan("public.t"), NAMES)
    prepare_shadow(connection, source, shadow, NAMES)
    swap = swap_steps(connection, source, shadow, NAMES)

    with connection.transaction():
        run_swap(connection, swap)
        held = connection.execute(_HELD).fetchall()

    wanted = {w.relation.oid: MODES.index(w.mode) for w in swap.wanted}
    spelled = {"".join(w.capitalize() for w in mode.split()) + "Lock": mode for mode in MODES}
    beyond = [
        (relation, mode)
        for oid, relation, mode in held
        if MODES.index(spelled[mode]) > wanted.get(oid, -1)
    ]
    assert {relation for _, relation, _ in held} >= {"tenants", "seen_too", "far_other", "other"}
    assert beyond == []
