"""DDL on the source while a job runs: what makes the shadow wrong stops the job and is named."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from restructure.engine import copier
from restructure.engine.drift import Guard
from restructure.errors import SchemaDrift
from restructure.model.phase import Phase
from restructure.model.relation import Relation
from restructure.model.wish import Wish
from restructure.runner import Runner
from restructure.shape.fingerprint import fingerprint
from restructure.shape.table import read_relation
from tests.pipeline.moments import Gate, assert_swapped_whole, value
from tests.pipeline.tool import Tool, leftovers, run_to_live
from tests.workload import PLAN, seed

ITEMS = PLAN.format(name="items").replace("workers: 2", "workers: 1")


@pytest.fixture
def items(connection: psycopg.Connection) -> psycopg.Connection:
    seed(connection, 1_000)
    return connection


def run(session: psycopg.Connection, statements: str) -> None:
    session.execute(statements)  # type: ignore[arg-type]


HARD = {
    "ALTER TABLE items ADD COLUMN extra integer": "column extra was added",
    "ALTER TABLE items DROP COLUMN flag": "column flag was dropped",
    "ALTER TABLE items RENAME COLUMN flag TO sign": "column flag was renamed to sign",
    "ALTER TABLE items ALTER amount TYPE bigint": "column amount: type changed",
    "ALTER TABLE items ALTER amount DROP NOT NULL": "column amount: not null changed",
    "ALTER TABLE items ALTER amount SET DEFAULT 7": "column amount: default changed",
    "ALTER TABLE items ALTER id ADD GENERATED ALWAYS AS IDENTITY": "column id: identity changed",
    "ALTER TABLE items DROP CONSTRAINT items_pkey": "constraint items_pkey was dropped",
    "ALTER TABLE items DROP CONSTRAINT items_code_key": "index items_code_key was dropped",
    "ALTER TABLE items ADD CONSTRAINT small CHECK (amount < 99999999)": "constraint small was added",
    "CREATE INDEX items_amount ON items (amount)": "index items_amount was added",
    "ALTER TABLE items ALTER code SET NOT NULL; "
    "ALTER TABLE items REPLICA IDENTITY USING INDEX items_code_key": "replica identity changed",
    "ALTER TABLE items REPLICA IDENTITY NOTHING": "replica identity changed",
    "ALTER TABLE items RENAME TO things": "the table's name changed",
    "ALTER TABLE items SET SCHEMA other": "the table's name changed",
    "CREATE TABLE heir () INHERITS (items)": "partition public.heir was added",
    "DROP TABLE items": "is gone",
}
SOFT = [
    "GRANT SELECT ON items TO PUBLIC",
    "GRANT UPDATE (amount) ON items TO PUBLIC",
    "COMMENT ON TABLE items IS 'things'",
    "COMMENT ON COLUMN items.code IS 'unique'",
    "ALTER TABLE items SET (autovacuum_enabled = off)",
    "ALTER TABLE items ALTER code SET STATISTICS 500",
    "CREATE VIEW big AS SELECT * FROM items WHERE amount > 5",
    "CREATE TRIGGER noisy BEFORE UPDATE ON items FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE POLICY mine ON items USING (amount > 0)",
    "ALTER TABLE items ENABLE ROW LEVEL SECURITY",
    "CREATE RULE quiet AS ON DELETE TO items DO INSTEAD NOTHING",
    "CREATE TABLE child (item integer REFERENCES items)",
    "CREATE STATISTICS linked ON code, amount FROM items",
    "VACUUM ANALYZE items",
    "REINDEX TABLE items",
]


@pytest.fixture
def guard(items: psycopg.Connection) -> Guard:
    row = items.execute("SELECT 'items'::regclass::oid::int8").fetchone()
    assert row is not None
    relation = Relation(row[0], "public", "items")
    return Guard(read_relation(items, relation.oid), fingerprint(items, relation), 0)


def test_every_change_that_matters_is_told_in_words(
    items: psycopg.Connection, guard: Guard
) -> None:
    items.execute("CREATE SCHEMA other")
    for statements, words in HARD.items():
        with items.transaction(force_rollback=True):
            run(items, statements)
            with pytest.raises(SchemaDrift) as drift:
                guard.check(items)
        assert words in drift.value.message, statements
        assert drift.value.exit_code == 6
    guard.check(items)


def test_what_the_swap_carries_is_no_drift(items: psycopg.Connection, guard: Guard) -> None:
    for statement in SOFT:
        run(items, statement)
        guard.check(items)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(copier, "_FIRST_CHUNK", 2)
    yield


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("point", "skip", "change", "undo", "words"),
    [
        (
            "copy.chunk",
            1,
            "ALTER TABLE items RENAME COLUMN body TO text",
            "ALTER TABLE items RENAME COLUMN text TO body",
            "column body was renamed to text",
        ),
        (
            "catchup.applied",
            0,
            "ALTER TABLE items RENAME TO things; UPDATE things SET amount = 1 WHERE id = 5",
            "ALTER TABLE things RENAME TO items",
            "the table's name changed",
        ),
        (
            "cutover.prepared",
            0,
            "ALTER TABLE items ADD COLUMN extra integer",
            None,
            "column extra was added",
        ),
    ],
    ids=["copy", "catchup", "under the lock"],
)
def test_drift_stops_the_job_and_undoing_it_lets_it_go_on(
    database: str,
    items: psycopg.Connection,
    point: str,
    skip: int,
    change: str,
    undo: str | None,
    words: str,
) -> None:
    with Gate(point, skip=skip) as gate, Tool(database, ITEMS) as tool:
        tool.until(lambda: gate.reached)
        run(items, change)
        gate.open()
        with pytest.raises(SchemaDrift, match=words):
            tool.finish()
    with pytest.raises(SchemaDrift, match=words):
        run_to_live(database, ITEMS)
    told = value(items, "SELECT error->>'message' FROM restructure.job")
    assert words in str(told), "status does not say why"
    if undo is None:  # a column that came and went is still a change of the row's shape
        Runner(database, lambda *_: None, lambda *_: None).abort("items")
        assert leftovers(database) == []
        return
    run(items, undo)
    assert run_to_live(database, ITEMS).phase == Phase.LIVE
    assert_swapped_whole(items)


def test_drift_is_seen_while_the_job_only_waits(database: str, items: psycopg.Connection) -> None:
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        run(items, "CREATE INDEX items_amount ON items (amount)")
        with pytest.raises(SchemaDrift, match="index items_amount was added"):
            tool.finish()


@pytest.mark.parametrize("attended", [True, False])
def test_a_lost_key_does_not_make_the_clients_fail(
    database: str, items: psycopg.Connection, attended: bool
) -> None:
    """A published table without replica identity refuses DELETE: our publication must go."""
    with Tool(database, ITEMS, Wish(stay=attended)) as tool:
        tool.wait_for_phase(Phase.READY)
        if not attended:
            tool.finish()
        run(items, "ALTER TABLE items DROP CONSTRAINT items_pkey")
        if attended:
            with pytest.raises(SchemaDrift, match="constraint items_pkey was dropped"):
                tool.finish()
    with pytest.raises(SchemaDrift, match="constraint items_pkey was dropped"):
        run_to_live(database, ITEMS)
    run(items, "DELETE FROM items WHERE id = 5")
    Runner(database, lambda *_: None, lambda *_: None).abort("items")
    assert leftovers(database) == []


def test_a_published_table_cannot_become_unlogged(database: str, items: psycopg.Connection) -> None:
    """PostgreSQL itself refuses what would leave the stream without changes."""
    with Tool(database, ITEMS, Wish(stay=True)) as tool:
        tool.wait_for_phase(Phase.READY)
        with pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match="part of a publication"
        ):
            run(items, "ALTER TABLE items SET UNLOGGED")


def test_grants_and_comments_of_the_last_moment_are_carried(
    database: str, items: psycopg.Connection
) -> None:
    run(items, "COMMENT ON TABLE items IS 'first'; COMMENT ON COLUMN items.code IS 'first'")
    run(items, "COMMENT ON INDEX items_code_key IS 'dropped meanwhile'")
    with (
        Tool(database, ITEMS, Wish(stay=True)) as tool,
        Gate("cutover.prepared") as gate,
    ):
        tool.wait_for_phase(Phase.READY)
        run(items, "COMMENT ON INDEX items_code_key IS NULL")
        run(items, "GRANT SELECT ON items TO PUBLIC; GRANT UPDATE (amount) ON items TO PUBLIC")
        run(items, "COMMENT ON COLUMN items.code IS 'early'")
        run(items, "UPDATE restructure.job SET request = 'cutover'")
        tool.until(lambda: gate.reached)
        run(items, "GRANT DELETE ON items TO PUBLIC; COMMENT ON TABLE items IS 'late'")
        gate.open()
        assert tool.finish().phase == Phase.LIVE
    assert "cutover not yet" in tool.happened
    kept = items.execute(
        "SELECT relacl::text, obj_description(oid, 'pg_class'), col_description(oid,"
        " (SELECT attnum FROM pg_attribute WHERE attrelid = c.oid AND attname = 'code')),"
        " has_column_privilege('pg_monitor', oid, 'amount', 'UPDATE'),"
        " obj_description('items_code_key'::regclass, 'pg_class')"
        " FROM pg_class c WHERE oid = 'items'::regclass"
    ).fetchone()
    assert kept is not None
    assert "=rd/" in kept[0]
    assert kept[1:] == ("late", "early", True, None)
