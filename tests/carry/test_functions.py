"""Functions that are bound to the table mean the new one after the swap, and stay what they are."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.swap import swap_steps
from tests.carry.build import NAMES
from tests.carry.reading import (
    ORDERS,
    carry,
    made,
    nothing_is_bound_to_the_old_table,
    one,
    reasons,
    refused,
    whole_dump,
)
from tests.shape_workbench import plan

ATOMIC = """
CREATE ROLE {p}_o; CREATE ROLE {p}_r; GRANT CREATE ON SCHEMA report TO {p}_o;
CREATE FUNCTION report."How Many"(at_least numeric DEFAULT 0, OUT n bigint, OUT "100%" text)
    LANGUAGE sql STABLE SECURITY DEFINER COST 7 PARALLEL SAFE SET search_path = report, public
    BEGIN ATOMIC SELECT count(*), '100%' AS percent FROM public.orders WHERE amount >= at_least; END;
ALTER FUNCTION report."How Many" OWNER TO {p}_o;
REVOKE ALL ON FUNCTION report."How Many" FROM PUBLIC;
GRANT EXECUTE ON FUNCTION report."How Many" TO {p}_r WITH GRANT OPTION;
COMMENT ON FUNCTION report."How Many" IS 'counts';
CREATE FUNCTION many(bigint) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM orders WHERE id > $1; END;
CREATE FUNCTION many(int DEFAULT 3) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT many($1::bigint); SELECT count(*) FROM orders; END;
CREATE PROCEDURE clean(below int) LANGUAGE sql
    BEGIN ATOMIC DELETE FROM orders WHERE id < below; INSERT INTO orders (note) VALUES ('cleaned'); END;
CREATE FUNCTION defaulted(o text DEFAULT ('orders'::regclass)::text) RETURNS text
    LANGUAGE plpgsql AS 'BEGIN RETURN o || nonsense; END';
CREATE VIEW v AS SELECT many(1), id FROM orders;
CREATE FUNCTION through() RETURNS SETOF bigint LANGUAGE sql BEGIN ATOMIC SELECT many FROM v; END;
"""


def test_a_dump_before_and_after_is_the_same_and_each_function_is_still_itself(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(ORDERS)
    connection.execute(ATOMIC.replace("{p}", connection.info.dbname))
    before, oids = whole_dump(server, database), routines(connection)
    assert refused(connection) == []
    assert reasons(connection) == []

    carry(connection)

    assert whole_dump(server, database) == before
    assert routines(connection) == oids
    assert nothing_is_bound_to_the_old_table(connection)
    still = connection.execute(
        "SELECT objid::regprocedure::text FROM pg_depend WHERE classid = 'pg_proc'::regclass"
        " AND refobjid = 'restructure_job_retired.orders'::regclass"
    ).fetchall()
    assert still == []


def routines(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT oid, proname FROM pg_proc WHERE oid >= 16384"
        " AND pronamespace::regnamespace::text IN ('public', 'report') ORDER BY oid"
    ).fetchall()


def test_functions_read_and_write_the_new_table(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(ATOMIC.replace("{p}", connection.info.dbname))
    carry(connection)

    connection.execute("CALL clean(4)")

    assert one(connection, "SELECT count(*) FROM orders") == 3
    assert one(connection, "SELECT many(0::bigint)") == 3
    assert one(connection, "SELECT count(*) FROM through()") == 3
    assert one(connection, "SELECT count(*) FROM restructure_job_retired.orders") == 5


def test_a_function_that_goes_with_an_extension_still_does(connection: psycopg.Connection) -> None:
    """CREATE OR REPLACE forgets it."""
    connection.execute(ORDERS)
    connection.execute(
        "CREATE FUNCTION many() RETURNS bigint LANGUAGE sql"
        " BEGIN ATOMIC SELECT count(*) FROM orders; END;"
        "ALTER FUNCTION many DEPENDS ON EXTENSION plpgsql"
    )

    carry(connection)

    assert (
        one(
            connection,
            "SELECT deptype FROM pg_depend WHERE objid = 'many'::regproc"
            " AND refclassid = 'pg_extension'::regclass",
        )
        == "x"
    )


@pytest.mark.parametrize("body", [True, False], ids=["read", "not read"])
def test_only_a_body_that_is_text_may_mention_what_does_not_exist(
    connection: psycopg.Connection, body: bool
) -> None:
    """With check_function_bodies off PostgreSQL does not compare a result with its type either."""
    connection.execute(ORDERS)
    connection.execute("SET check_function_bodies = off")
    connection.execute(
        "CREATE FUNCTION first() RETURNS numeric LANGUAGE sql BEGIN ATOMIC SELECT min(amount) FROM orders; END"
        if body
        else "CREATE FUNCTION first(orders) RETURNS int LANGUAGE sql AS 'SELECT min(id) FROM no_such'"
    )

    found = reasons(connection, plan("orders", alter=["ALTER COLUMN amount TYPE text"]))

    assert [reason.partition(":")[0] for reason in found] == ["function public.first()"] * body
    assert all("return type mismatch" in reason for reason in found)


@pytest.mark.parametrize(
    ("statement", "label"),
    [
        (
            "CREATE FUNCTION f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT note FROM orders; END",
            "function public.f()",
        ),
        (
            "CREATE FUNCTION f(orders) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT ($1).note; END",
            "function public.f(public.orders)",
        ),
        (
            "CREATE PROCEDURE report.p() LANGUAGE sql BEGIN ATOMIC UPDATE orders SET note = ''; END",
            "procedure report.p()",
        ),
    ],
)
def test_a_function_of_a_dropped_column_is_refused_by_name(
    connection: psycopg.Connection, statement: str, label: str
) -> None:
    connection.execute(ORDERS)
    connection.execute(statement)

    (reason,) = reasons(connection, plan("orders", alter=["DROP COLUMN note"]))

    assert reason.startswith(f"{label}: column ")
    assert "note" in reason


def test_a_function_whose_declared_rows_no_longer_fit_is_refused_by_name(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE FUNCTION f() RETURNS TABLE (n numeric) LANGUAGE sql"
        " BEGIN ATOMIC SELECT amount FROM orders; END;"
        "CREATE FUNCTION g() RETURNS SETOF orders LANGUAGE sql BEGIN ATOMIC SELECT * FROM orders; END"
    )

    (reason,) = reasons(connection, plan("orders", alter=["ALTER COLUMN amount TYPE text"]))

    assert reason.startswith("function public.f(): return type mismatch")


def test_a_row_type_function_has_the_new_row_type(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE FUNCTION big(orders) RETURNS bigint LANGUAGE sql AS 'SELECT $1.id::bigint';"
        "CREATE VIEW v AS SELECT orders.big FROM orders"
    )

    carry(connection, plan("orders", alter=["ALTER COLUMN id TYPE bigint"]))

    connection.execute("INSERT INTO orders (id) OVERRIDING SYSTEM VALUE VALUES (3000000000)")
    assert one(connection, "SELECT max(big) FROM v") == 3_000_000_000
    assert (
        one(
            connection,
            "SELECT count(*) FROM pg_proc WHERE proname = 'big'"
            " AND pronamespace = 'public'::regnamespace",
        )
        == 1
    )


def test_a_function_made_too_late_is_found_when_the_shadow_is_prepared_again(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    source, shadow = made(connection, plan("orders", alter=["DROP COLUMN note"]))
    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute(
        "CREATE FUNCTION f(orders) RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT ($1).note; END"
    )

    with pytest.raises(OperatorNeeded, match=r"function public\.f\(public\.orders\): column"):
        prepare_shadow(connection, source, shadow, NAMES)


def test_every_statement_on_functions_in_the_swap_is_on_these(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(ATOMIC.replace("{p}", connection.info.dbname))
    source, shadow = made(connection)
    prepare_shadow(connection, source, shadow, NAMES)

    texts = [step.text for step in swap_steps(connection, source, shadow, NAMES).steps]

    replaced = [text.split("(")[0] for text in texts if text.startswith("CREATE OR REPLACE")]
    assert sorted(replaced) == [
        "CREATE OR REPLACE FUNCTION public.defaulted",
        "CREATE OR REPLACE FUNCTION public.many",
        "CREATE OR REPLACE FUNCTION public.many",
        "CREATE OR REPLACE FUNCTION public.through",
        'CREATE OR REPLACE FUNCTION report."How Many"',
        "CREATE OR REPLACE PROCEDURE public.clean",
    ]
