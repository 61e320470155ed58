"""Dropping what is ours: all of it, in small steps, and nothing that somebody else has built on it."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import NotNow, OperatorNeeded
from restructure.model import failpoint
from restructure.phases import removal
from restructure.phases.removal import remove_schema
from tests.pipeline.moments import value

SCHEMA = "Restructure o%k retired"
EVERYTHING = """
CREATE SCHEMA "{s}"; SET search_path = "{s}";
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE SEQUENCE free;
CREATE TABLE "T%" (id serial, a int GENERATED ALWAYS AS IDENTITY, b int DEFAULT f(1), PRIMARY KEY (id))
    PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF "T%" FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
CREATE TABLE lowest PARTITION OF low DEFAULT;
CREATE TABLE high PARTITION OF "T%" DEFAULT;
INSERT INTO "T%" VALUES (1), (100);
CREATE STATISTICS both_of_them ON a, b FROM "T%";
CREATE VIEW w AS SELECT * FROM "T%"; CREATE MATERIALIZED VIEW m AS SELECT * FROM w;
CREATE PROCEDURE reads(n int) BEGIN ATOMIC SELECT count(*) FROM m WHERE a > n; END;
CREATE TYPE pair AS (one int, other int);
CREATE TABLE odd (p pair);
RESET search_path;
""".replace("{s}", SCHEMA)

Session = psycopg.Connection


@pytest.fixture
def standing(connection: Session) -> Session:
    """A session on a database with one of each kind in the schema."""
    connection.execute(EVERYTHING)
    return connection


def left(session: Session) -> list[str]:
    """The tables that are left."""
    rows = session.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s))"
        " AND relkind IN ('r', 'p') ORDER BY 1",
        [SCHEMA],
    )
    return [name for (name,) in rows]


def is_there(session: Session) -> bool:
    return bool(value(session, "SELECT to_regnamespace(quote_ident(%s)) IS NOT NULL", SCHEMA))


def test_everything_goes_one_after_the_other_and_partitions_before_their_table(
    database: str, standing: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_BIG", 0)
    steps: list[list[str]] = []
    announced: list[str] = []
    with psycopg.connect(database, autocommit=True) as other:
        monkeypatch.setitem(failpoint.here, "removal.dropped", lambda: steps.append(left(other)))
        remove_schema(standing, SCHEMA, lambda name, size: announced.append(name))

    assert not is_there(standing)
    assert sorted({len(tables) for tables in steps}) == list(range(6))
    for tables in steps:
        assert ("low" in tables) <= ("T%" in tables)
        assert ("lowest" in tables) <= ("low" in tables)
    assert f'"{SCHEMA}".high' in announced and f'"{SCHEMA}".m' in announced
    assert all("free" not in name for name in announced)
    remove_schema(standing, SCHEMA)  # safe to repeat


BUILT = {
    "view mine": (
        'CREATE VIEW mine AS SELECT id FROM "{s}".high',
        "DROP VIEW mine",
        {"high"},
    ),
    "table mine": (
        'CREATE TABLE mine (id int REFERENCES "{s}".low)',
        "DROP TABLE mine",
        {"low"},
    ),
    "column d of table": (
        'CREATE TABLE public."user" (d "{s}".day)',
        'DROP TABLE "user"',
        set(),
    ),
}


@pytest.mark.parametrize("what", BUILT)
def test_what_somebody_built_on_it_is_named_and_stays_with_what_it_is_built_on(
    standing: Session, what: str
) -> None:
    make, drop, kept = BUILT[what]
    standing.execute(f'CREATE DOMAIN "{SCHEMA}".day AS int')
    standing.execute(make.replace("{s}", SCHEMA))
    with pytest.raises(OperatorNeeded, match=f"{what}.* depends"):
        remove_schema(standing, SCHEMA)
    assert is_there(standing) and kept <= set(left(standing))

    standing.execute(drop)
    standing.execute(f'DROP DOMAIN "{SCHEMA}".day')  # no kind of thing that we would make
    remove_schema(standing, SCHEMA)
    assert not is_there(standing)


def test_what_is_in_use_is_left_for_later(
    database: str, standing: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_LOCK_TIMEOUT", "50ms")
    with psycopg.connect(database) as reader:
        reader.execute(f'SELECT * FROM "{SCHEMA}".lowest')
        with pytest.raises(NotNow, match="lowest is in use") as refused:
            remove_schema(standing, SCHEMA)
        assert refused.value.exit_code == 5
    assert "lowest" in left(standing)
    remove_schema(standing, SCHEMA)
    assert not is_there(standing)


def test_what_an_event_trigger_refuses_is_told(standing: Session) -> None:
    standing.execute(
        "CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no DDL in business hours'; END$$;"
        "CREATE EVENT TRIGGER guard ON sql_drop EXECUTE FUNCTION guard()"
    )
    with pytest.raises(OperatorNeeded, match="no DDL in business hours"):
        remove_schema(standing, SCHEMA)
    assert len(left(standing)) == 5
