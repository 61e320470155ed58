"""Publications: what they hold, that clients keep writing, and that changes are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from restructure.errors import NotNow, PreflightRefused
from restructure.model.relation import Watched
from restructure.postgres import publication
from restructure.postgres.connect import connect
from restructure.postgres.script import Script
from tests.stream_contract import watch

NAME = "restructure_t_pub"


@pytest.fixture
def session(database: str) -> Iterator[psycopg.Connection]:
    with closing(connect(database, job="t-pub")) as made:
        yield made


def make(session: psycopg.Connection, watched: Watched) -> Script:
    script = Script(session)
    with session.transaction():
        publication.create(script, NAME, watched)
    return script


def no_publication(session: psycopg.Connection) -> bool:
    return publication.identity(session, NAME) is None


def clients_can_write(session: psycopg.Connection, table: str) -> None:
    """The checks that a publication adds to clients' writes do not object."""
    for statement in ("UPDATE {} SET v = 1", "DELETE FROM {}"):
        session.execute(sql.SQL(statement).format(sql.Identifier(table)))


def test_every_leaf_is_listed_with_its_key(session: psycopg.Connection) -> None:
    session.execute(
        "CREATE TABLE t (id int, v int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);"
        " CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');"
        " CREATE TABLE t2 (at date NOT NULL, v int, id int NOT NULL);"
        " ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')"
    )
    watched = watch(session, "t1", "t2", key=["id", "at"])
    script = make(session, watched)
    rows = session.execute(
        "SELECT tablename, attnames::text[] FROM pg_publication_tables WHERE pubname = %s"
        " ORDER BY tablename",
        [NAME],
    ).fetchall()
    assert [(table, sorted(names)) for table, names in rows] == [
        ("t1", ["at", "id"]),
        ("t2", ["at", "id"]),
    ]
    assert publication.covers(session, NAME, watched)
    session.execute("INSERT INTO t VALUES (1, 1, '2024-05-05'), (1, 1, '2025-05-05')")
    clients_can_write(session, "t")
    texts = [step.text for step in script.steps]
    assert any(text.startswith(f'CREATE PUBLICATION "{NAME}" FOR TABLE ONLY') for text in texts)
    assert all(step.lock and step.why for step in script.steps)


def test_a_plan_can_be_shown_and_taken_back(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    watched = watch(session, "t", key=["id"])
    script = Script(session)
    with session.transaction(force_rollback=True):
        publication.create(script, NAME, watched)
    assert len(script.steps) == 5
    assert no_publication(session)


def test_no_statement_trigger_fires(session: psycopg.Connection) -> None:
    session.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE fired (op text);"
        " CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO fired VALUES (tg_op); RETURN NULL; END $$;"
        " CREATE TRIGGER noted AFTER UPDATE OR DELETE ON t FOR EACH STATEMENT"
        " EXECUTE FUNCTION note()"
    )
    make(session, watch(session, "t", key=["id"]))
    assert session.execute("SELECT op FROM fired").fetchall() == []


REFUSED: dict[str, tuple[LiteralString, list[str], str]] = {
    "no identity (55000)": ("CREATE TABLE t (id int, v int)", ["id"], "replica identity"),
    "identity NOTHING (55000)": (
        "CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t REPLICA IDENTITY NOTHING",
        ["id"],
        "replica identity",
    ),
    "a deferrable key (55000)": (
        "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, v int)",
        ["id"],
        "replica identity",
    ),
    "full identity with a column list (42P10)": (
        "CREATE TABLE t (id int PRIMARY KEY, v int); ALTER TABLE t REPLICA IDENTITY FULL",
        ["id"],
        "Column list|column list",
    ),
    "another identity than the key (42P10)": (
        "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL UNIQUE);"
        " ALTER TABLE t REPLICA IDENTITY USING INDEX t_v_key",
        ["id"],
        "Column list|column list",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_break_clients_is_refused_and_nothing_changed(
    case: str, session: psycopg.Connection
) -> None:
    create, key, reason = REFUSED[case]
    session.execute(create)
    with pytest.raises(PreflightRefused, match=reason) as refused:
        make(session, watch(session, "t", key=key))
    assert refused.value.findings[0].hint
    assert no_publication(session)
    clients_can_write(session, "t")


def test_one_leaf_without_identity_is_enough_to_refuse(session: psycopg.Connection) -> None:
    session.execute(
        "CREATE TABLE t (id int, v int) PARTITION BY LIST (id);"
        " CREATE TABLE t1 PARTITION OF t (PRIMARY KEY (id)) FOR VALUES IN (1);"
        " CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2)"
    )
    with pytest.raises(PreflightRefused, match='cannot update table "t2"'):
        make(session, watch(session, "t1", "t2", key=["id"]))


def test_an_identity_column_may_be_the_key(session: psycopg.Connection) -> None:
    """GENERATED ALWAYS columns can be set to DEFAULT only, which the trial respects."""
    session.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int)")
    make(session, watch(session, "t", key=["id"]))
    clients_can_write(session, "t")


def test_full_identity_is_published_whole(session: psycopg.Connection) -> None:
    session.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v int, w int GENERATED ALWAYS AS (id + 1) STORED);"
        " ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 0)"
    )
    watched = watch(session, "t", key=["id"], full=True)
    make(session, watched)
    assert publication.covers(session, NAME, watched)
    clients_can_write(session, "t")


GENERATED_KEY: LiteralString = (
    "CREATE TABLE t (v int, id int GENERATED ALWAYS AS (7) STORED PRIMARY KEY);"
    " INSERT INTO t VALUES (1)"
)


@pytest.mark.pg_at_least(18)
def test_a_generated_key_is_published_where_that_is_possible(session: psycopg.Connection) -> None:
    session.execute(GENERATED_KEY)
    watched = watch(session, "t", key=["id"])
    make(session, watched)
    assert publication.covers(session, NAME, watched)
    clients_can_write(session, "t")


def test_a_generated_key_is_refused_before_18(session: psycopg.Connection) -> None:
    if session.info.server_version >= 180000:
        pytest.skip("PostgreSQL 18 publishes generated columns")
    session.execute(GENERATED_KEY)
    with pytest.raises(PreflightRefused, match="generated"):
        make(session, watch(session, "t", key=["id"]))
    assert no_publication(session)


ALTERATIONS: dict[str, LiteralString] = {
    "an operation less": "ALTER PUBLICATION {} SET (publish = 'insert, update, delete')",
    "as the root's": "ALTER PUBLICATION {} SET (publish_via_partition_root = true)",
    "a table more": "ALTER PUBLICATION {} ADD TABLE other",
    "another table": "ALTER PUBLICATION {} SET TABLE other",
    "other columns": "ALTER PUBLICATION {} SET TABLE t (id, v)",
    "no column list": "ALTER PUBLICATION {} SET TABLE t",
    "a row filter": "ALTER PUBLICATION {} SET TABLE t (id) WHERE (id > 5)",
    "a schema": "ALTER PUBLICATION {} SET TABLES IN SCHEMA public",
    "no publication": "DROP PUBLICATION {}",
}


@pytest.mark.parametrize("case", ALTERATIONS)
def test_an_altered_publication_is_another_one(case: str, session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE other (id int)")
    watched = watch(session, "t", key=["id"])
    make(session, watched)
    before = publication.identity(session, NAME)
    assert before is not None
    assert publication.identity(session, NAME) == before
    session.execute(sql.SQL(ALTERATIONS[case]).format(sql.Identifier(NAME)))
    assert publication.identity(session, NAME) != before
    assert not publication.covers(session, NAME, watched)


def test_one_that_was_made_again_is_another_one(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    watched = watch(session, "t", key=["id"])
    make(session, watched)
    before = publication.identity(session, NAME)
    publication.drop(Script(session), NAME)
    make(session, watched)
    assert publication.covers(session, NAME, watched)
    assert publication.identity(session, NAME) != before


def test_only_our_own_is_dropped(session: psycopg.Connection) -> None:
    session.execute(sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(NAME)))
    publication.drop(Script(session), NAME)
    assert not no_publication(session)
    with pytest.raises(PreflightRefused, match="is not ours"):
        publication.refuse_foreign(session, NAME)
    session.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(NAME)))
    publication.refuse_foreign(session, NAME)


def test_maintenance_on_a_table_is_not_waited_for_long(
    session: psycopg.Connection, connection: psycopg.Connection
) -> None:
    session.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    with connection.transaction(force_rollback=True):
        connection.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        with pytest.raises(NotNow, match=r"public\.t was not had"):
            make(session, watch(session, "t", key=["id"]))
    assert no_publication(session)


def test_key_types_without_a_binary_form_are_found(session: psycopg.Connection) -> None:
    session.execute("CREATE TABLE t (a int, b aclitem, c text)")
    key = watch(session, "t", key=["a", "b", "c"]).key
    assert publication.without_binary_form(session, key) == ["b (aclitem)"]
