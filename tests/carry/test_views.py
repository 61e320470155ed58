"""Views and materialized views over the table come to the new one with all that belongs to them."""

from __future__ import annotations

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.errors import OperatorNeeded
from restructure.phases.preview import preview
from restructure.shape.carry.prepare import prepare_shadow
from restructure.shape.carry.rehearse import rehearse
from restructure.shape.table import read_table
from tests.carry.build import NAMES
from tests.carry.reading import (
    ORDERS,
    carry,
    composed,
    made,
    nothing_is_bound_to_the_old_table,
    one,
    reasons,
    refused,
    run,
    whole_dump,
)
from tests.shape_workbench import build, plan

RICH: dict[str, str] = {
    "plain": "CREATE VIEW v AS SELECT id, note AS remark FROM orders WHERE amount > 1",
    "all columns": "CREATE VIEW v (a, b) AS SELECT * FROM orders",
    "options": """CREATE VIEW v WITH (security_barrier) AS SELECT id FROM orders;
        CREATE VIEW w WITH (security_invoker = true, check_option = cascaded) AS
            SELECT id, amount FROM orders WHERE amount > 0;
        CREATE VIEW x AS SELECT * FROM w WHERE id > 0 WITH LOCAL CHECK OPTION""",
    "views on views across schemas": """
        CREATE VIEW report.a AS SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer;
        CREATE VIEW "B b" AS SELECT a.* FROM report.a, orders WHERE a.id = orders.id;
        CREATE VIEW report.c AS SELECT count(*) AS "how ""many%" FROM "B b" """,
    "the same name as the table in another schema":
        "CREATE SCHEMA tenant; CREATE VIEW tenant.orders AS SELECT * FROM public.orders;"
        "CREATE VIEW report.orders AS SELECT id FROM public.orders",
    "grants and owner": """CREATE ROLE {p}_o; CREATE ROLE {p}_r; GRANT CREATE ON SCHEMA public TO {p}_o;
        CREATE VIEW v AS SELECT id, note FROM orders; ALTER VIEW v OWNER TO {p}_o;
        GRANT SELECT, INSERT ON v TO {p}_r WITH GRANT OPTION; GRANT UPDATE (note) ON v TO PUBLIC;
        REVOKE DELETE ON v FROM {p}_o;
        SET ROLE {p}_r; GRANT SELECT ON v TO PUBLIC; RESET ROLE""",
    "default privileges": """CREATE ROLE {p}_r; CREATE VIEW v AS SELECT id FROM orders;
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {p}_r""",
    "comments": """CREATE VIEW v AS SELECT id FROM orders; COMMENT ON VIEW v IS 'it''s 100%';
        COMMENT ON COLUMN v.id IS 'a column'""",
    "column defaults": """CREATE VIEW v AS SELECT id, note, amount FROM orders;
        ALTER VIEW v ALTER note SET DEFAULT 'from the view%',
        ALTER amount SET DEFAULT currval('orders_id_seq')""",
    "instead of triggers": """
        CREATE VIEW v AS SELECT id, note FROM orders;
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER "On It" INSTEAD OF INSERT OR UPDATE ON v FOR EACH ROW
            EXECUTE FUNCTION f('ON public.v ', '100%');
        CREATE TRIGGER every AFTER DELETE ON v FOR EACH STATEMENT EXECUTE FUNCTION f();
        COMMENT ON TRIGGER "On It" ON v IS 'fires'""",
    "rules on a view": """CREATE VIEW v AS SELECT id, note FROM orders WHERE id > 2;
        CREATE RULE "To v" AS ON INSERT TO v WHERE NEW.id > 0 DO INSTEAD
            INSERT INTO orders (note) VALUES (NEW.note);
        CREATE RULE other AS ON INSERT TO v DO INSTEAD NOTHING;
        COMMENT ON RULE other ON v IS 'nothing'""",
    "recursive": """CREATE RECURSIVE VIEW v (n) AS
        SELECT min(id) FROM orders UNION ALL SELECT n + 1 FROM v WHERE n < (SELECT max(id) FROM orders)""",
    "whole row": """CREATE VIEW v AS SELECT orders FROM orders; CREATE VIEW w AS SELECT NULL::orders AS o;
        CREATE VIEW x AS SELECT (v.orders).id FROM v""",
    "grouped by the primary key": "CREATE VIEW v AS SELECT o.*, count(*) FROM orders o GROUP BY o.id",
    "a sequence": "CREATE VIEW v AS SELECT last_value FROM orders_id_seq",
    "joins, windows and set operations": """CREATE VIEW v AS
        WITH x AS MATERIALIZED (SELECT * FROM orders)
        SELECT a.id, row_number() OVER w AS n FROM orders a LEFT JOIN x USING (id)
        WINDOW w AS (PARTITION BY a.customer) UNION SELECT id, id FROM customers
        WHERE id NOT IN (SELECT id FROM orders) ORDER BY 1""",
    "materialized": """
        CREATE VIEW a AS SELECT id, note, amount FROM orders;
        CREATE MATERIALIZED VIEW report.m WITH (fillfactor = 70, autovacuum_enabled = false,
            toast.autovacuum_enabled = false) AS SELECT id, note, amount FROM a;
        CREATE UNIQUE INDEX m_id ON report.m (id) WITH (fillfactor = 60);
        CREATE INDEX m_lower ON report.m (lower(note)) INCLUDE (amount) WHERE note <> '100%';
        ALTER INDEX report.m_lower ALTER COLUMN 1 SET STATISTICS 77;
        ALTER MATERIALIZED VIEW report.m CLUSTER ON m_id;
        ALTER MATERIALIZED VIEW report.m ALTER note SET STORAGE EXTERNAL, ALTER note SET STATISTICS 5,
            ALTER note SET COMPRESSION pglz, ALTER id SET (n_distinct = -0.5);
        COMMENT ON MATERIALIZED VIEW report.m IS 'stored'; COMMENT ON COLUMN report.m.id IS 'key';
        COMMENT ON INDEX report.m_id IS 'unique'; GRANT SELECT ON report.m TO PUBLIC;
        CREATE MATERIALIZED VIEW empty AS SELECT * FROM report.m WITH NO DATA;
        CREATE VIEW z AS SELECT count(*) FROM report.m""",
    "row-type functions": """CREATE ROLE {p}_o; CREATE ROLE {p}_r; GRANT CREATE ON SCHEMA public TO {p}_o;
        CREATE FUNCTION title(orders) RETURNS text LANGUAGE sql IMMUTABLE COST 7
            SET work_mem = '1MB' AS 'SELECT $1.note || ''100%''';
        CREATE FUNCTION title(orders, int) RETURNS text LANGUAGE sql
            BEGIN ATOMIC SELECT ($1).note; END;
        CREATE FUNCTION all_of() RETURNS SETOF orders LANGUAGE sql AS 'SELECT * FROM public.orders';
        CREATE FUNCTION many(VARIADIC o orders[], OUT n int) LANGUAGE plpgsql AS 'BEGIN n := 1; END';
        CREATE PROCEDURE report.proc(INOUT orders) LANGUAGE plpgsql AS 'BEGIN END';
        ALTER FUNCTION title(orders) OWNER TO {p}_o; REVOKE ALL ON FUNCTION title(orders) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION title(orders) TO {p}_r WITH GRANT OPTION;
        SET ROLE {p}_r; GRANT EXECUTE ON FUNCTION title(orders) TO PUBLIC; RESET ROLE;
        COMMENT ON FUNCTION title(orders, int) IS 'two';
        CREATE VIEW v AS SELECT orders.title, a.id FROM orders, all_of() a;
        CREATE FUNCTION of_view(v) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT ($1).id; END""",
    "functions in between": """
        CREATE FUNCTION one() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders; END;
        CREATE VIEW v AS SELECT one(), id FROM orders;
        CREATE FUNCTION two() RETURNS SETOF v LANGUAGE sql BEGIN ATOMIC SELECT * FROM v; END;
        CREATE FUNCTION three() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT max(id) FROM two(); END;
        CREATE OR REPLACE FUNCTION one() RETURNS bigint LANGUAGE sql
            BEGIN ATOMIC SELECT count(*) FROM v; END""",
}  # fmt: skip


@pytest.mark.parametrize("case", RICH)
def test_a_dump_before_and_after_is_the_same(
    server: Server, database: str, connection: psycopg.Connection, case: str
) -> None:
    connection.execute(ORDERS)
    connection.execute(RICH[case].replace("{p}", connection.info.dbname))
    before = whole_dump(server, database)
    assert refused(connection) == []

    carry(connection)

    assert whole_dump(server, database) == before
    assert nothing_is_bound_to_the_old_table(connection)


@pytest.mark.parametrize("case", RICH)
def test_what_can_be_carried_is_not_refused_by_the_rehearsal(
    connection: psycopg.Connection, case: str
) -> None:
    connection.execute(ORDERS)
    connection.execute(RICH[case].replace("{p}", connection.info.dbname))

    assert reasons(connection) == []


PARTITIONED = """
CREATE SCHEMA restructure; CREATE SCHEMA parts;
CREATE TABLE orders (id int, amount numeric, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE orders_low PARTITION OF orders FOR VALUES FROM (0) TO (10);
CREATE TABLE parts.orders_high PARTITION OF orders FOR VALUES FROM (10) TO (90) PARTITION BY HASH (id);
CREATE TABLE parts.orders_0 PARTITION OF parts.orders_high FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO orders SELECT n, n FROM generate_series(1, 20) n;
CREATE VIEW whole AS SELECT * FROM orders;
CREATE VIEW leaf AS SELECT orders_0.id, orders_0 FROM parts.orders_0, orders_low;
CREATE VIEW parts.branch AS SELECT * FROM parts.orders_high;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM leaf NATURAL JOIN whole;
CREATE FUNCTION of_leaf(parts.orders_0) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION low() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders_low; END;
"""


def test_what_reads_a_single_partition_reads_that_of_the_new_table(
    server: Server, database: str, connection: psycopg.Connection
) -> None:
    connection.execute(PARTITIONED)
    before = whole_dump(server, database)

    carry(connection)

    assert whole_dump(server, database) == before
    assert nothing_is_bound_to_the_old_table(connection)
    assert one(connection, "SELECT count(*) FROM kept") == one(
        connection, "SELECT count(*) FROM leaf"
    )


def test_a_view_on_a_partition_that_the_new_table_has_not_is_refused_by_name(
    connection: psycopg.Connection,
) -> None:
    connection.execute(PARTITIONED)
    loaded = plan("orders", create="CREATE TABLE orders (id int PRIMARY KEY, amount numeric)")

    found = reasons(connection, loaded)

    assert any("leaf" in reason and "old parts.orders_0" in reason for reason in found), found
    assert any("low()" in reason and "old public.orders_low" in reason for reason in found)
    assert not any("whole" in reason for reason in found)


def test_a_retyped_column_is_retyped_in_every_view_on_it(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW a AS SELECT id, customer FROM orders; CREATE VIEW b AS SELECT id FROM a;"
        "CREATE MATERIALIZED VIEW c AS SELECT id AS n FROM b; CREATE UNIQUE INDEX c_n ON c (n)"
    )

    carry(connection, plan("orders", alter=["ALTER COLUMN id TYPE bigint"]))

    types = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attnum > 0"
        " AND attrelid IN ('a'::regclass, 'b'::regclass, 'c'::regclass, 'c_n'::regclass)"
    ).fetchall()
    assert sorted(set(types)) == [("customer", "integer"), ("id", "bigint"), ("n", "bigint")]


def test_a_view_on_a_dropped_column_is_refused_with_its_name_and_the_column(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW keeps AS SELECT id FROM orders; CREATE VIEW whole AS SELECT orders FROM orders;"
        "CREATE VIEW report.loses AS SELECT id, note FROM orders;"
        "CREATE VIEW inner_loses AS SELECT (whole.orders).note FROM whole;"
        "CREATE VIEW follows AS SELECT id FROM report.loses"
    )

    found = reasons(connection, plan("orders", alter=["DROP COLUMN note"]))

    assert len(found) == 2
    assert any(r.startswith("view report.loses: column") and "note" in r for r in found)
    assert any(r.startswith("view public.inner_loses: column") and "note" in r for r in found)


def test_a_name_that_means_two_things_is_refused(connection: psycopg.Connection) -> None:
    """The view of the table's name is staged under another one; whoever reads it is not."""
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW report.orders AS SELECT id FROM public.orders;"
        "CREATE VIEW reads AS SELECT * FROM report.orders"
    )

    (reason,) = reasons(connection)

    assert "public.reads" in reason
    assert "report.orders" in reason


def test_views_that_need_each_other_are_refused(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW v AS SELECT id, NULL::int AS n FROM orders;"
        "CREATE FUNCTION f(v) RETURNS int LANGUAGE sql AS 'SELECT 1';"
        "CREATE OR REPLACE VIEW v AS SELECT id, f(NULL) AS n FROM orders"
    )

    (named,) = refused(connection)

    assert "view public.v" in named
    assert "function public.f(public.v)" in named


def test_locking_a_view_locks_nothing_that_it_reads(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW a AS SELECT * FROM orders; CREATE VIEW b AS SELECT * FROM a;"
        "CREATE MATERIALIZED VIEW c AS SELECT * FROM b; CREATE INDEX ON c (id)"
    )
    source, shadow = made(connection)
    swap = composed(connection, source, shadow)
    with connection.transaction(force_rollback=True):
        locked = []
        for step in swap.first:
            connection.execute(step.text)
            locked.append(strong_locks(connection))

    assert locked == [{"c"}, {"c", "b"}, {"c", "b", "a"}]
    announced = {str(wanted.relation): wanted.lockable for wanted in swap.wanted}
    assert {announced[f"public.{name}"] for name in "abc"} == {False}


def strong_locks(connection: psycopg.Connection) -> set[str]:
    """Relations of the application that this session keeps readers from."""
    return {
        name
        for (name,) in connection.execute(
            "SELECT l.relation::regclass::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
            " WHERE pid = pg_backend_pid() AND mode <> 'AccessShareLock' AND c.oid >= 16384"
            " AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
    }


def test_rehearsing_and_preparing_lock_nothing_of_the_application_but_against_drop(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(CHANGING)
    connection.execute("ALTER TABLE customers ADD day oid DEFAULT 'orders'::regclass::oid")
    source = read_table(connection, "orders")
    shadow = build(connection, plan("orders"), source)
    with connection.transaction(force_rollback=True):
        assert list(rehearse(connection, source, shadow, NAMES)) == []
        assert strong_locks(connection) == set()
        prepare_shadow(connection, source, shadow, NAMES)
        assert strong_locks(connection) == set()


def test_what_has_not_changed_is_not_made_again(connection: psycopg.Connection) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW v AS SELECT id FROM orders; CREATE MATERIALIZED VIEW m AS SELECT * FROM v;"
        "CREATE MATERIALIZED VIEW n AS SELECT * FROM v WITH NO DATA"
    )
    source, shadow = made(connection)
    first = prepare_shadow(connection, source, shadow, NAMES)
    second = prepare_shadow(connection, source, shadow, NAMES)

    assert any(step.text.startswith("CREATE VIEW") for step in first)
    assert {step.text.split()[0] for step in second} == {"SET", "REFRESH", "ANALYZE"}
    assert not any('"n"' in step.text for step in second)


CHANGES = {
    "another definition": "CREATE OR REPLACE VIEW v AS SELECT id, note, 1 AS one FROM orders",
    "an option": "ALTER VIEW v SET (security_barrier)",
    "a grant": "GRANT SELECT ON v TO PUBLIC",
    "a column's grant": "GRANT SELECT (id) ON v TO PUBLIC",
    "a comment": "COMMENT ON VIEW v IS 'new'",
    "a column's default": "ALTER VIEW v ALTER note SET DEFAULT 'x'",
    "a rule": "CREATE RULE r AS ON DELETE TO v DO INSTEAD NOTHING",
    "a trigger": "CREATE TRIGGER g INSTEAD OF DELETE ON v FOR EACH ROW EXECUTE FUNCTION f()",
    "a view on it": "CREATE VIEW x AS SELECT * FROM w",
    "one less": "DROP VIEW w",
    "another name": "ALTER VIEW w RENAME TO renamed",
    "another schema": "ALTER VIEW w SET SCHEMA report",
    "an index": "CREATE INDEX m_n ON m (note)",
    "a function of its row": "CREATE FUNCTION g(v) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a body": "CREATE OR REPLACE FUNCTION many() RETURNS bigint LANGUAGE sql"
    " BEGIN ATOMIC SELECT max(id) FROM orders; END",
}
CHANGING = """
CREATE VIEW v AS SELECT id, note FROM orders; CREATE VIEW w AS SELECT * FROM v;
CREATE MATERIALIZED VIEW m AS SELECT * FROM v;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE FUNCTION many() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders; END;
"""


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_since_it_was_made_stops_the_swap_and_is_made_again(
    server: Server, database: str, connection: psycopg.Connection, change: str
) -> None:
    connection.execute(ORDERS)
    connection.execute(CHANGING)
    source, shadow = made(connection)
    swap = composed(connection, source, shadow)
    connection.execute(CHANGES[change])
    before = whole_dump(server, database)

    with pytest.raises((psycopg.errors.DependentObjectsStillExist, psycopg.errors.UndefinedTable)):
        run(connection, swap)
    assert whole_dump(server, database) == before
    run(connection, composed(connection, source, shadow))

    assert whole_dump(server, database) == before
    assert nothing_is_bound_to_the_old_table(connection)


def test_what_no_longer_hangs_on_the_table_is_removed_beside_the_shadow(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW v AS SELECT id FROM orders; CREATE MATERIALIZED VIEW w AS SELECT * FROM v;"
        "CREATE FUNCTION f(orders) RETURNS int LANGUAGE sql AS 'SELECT 1';"
    )
    source, shadow = made(connection)
    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute("DROP VIEW v CASCADE; DROP FUNCTION f")

    prepare_shadow(connection, source, shadow, NAMES)

    left = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'restructure_job'::regnamespace"
        " AND relkind IN ('v', 'm') UNION ALL SELECT proname FROM pg_proc"
        " WHERE pronamespace = 'restructure_job'::regnamespace"
    ).fetchall()
    assert left == []


def test_a_view_created_on_a_dropped_column_during_the_job_is_for_a_person_to_decide(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    source, shadow = made(connection, plan("orders", alter=["DROP COLUMN note"]))
    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute("CREATE VIEW late AS SELECT note FROM orders")

    with pytest.raises(OperatorNeeded, match=r"view public\.late: column .*note.* does not exist"):
        prepare_shadow(connection, source, shadow, NAMES)


def test_clients_read_and_write_through_the_view_as_before(
    database: str, connection: psycopg.Connection
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW v AS SELECT id, note, amount FROM orders WHERE amount >= 0 WITH CHECK OPTION;"
        "ALTER VIEW v ALTER note SET DEFAULT 'of the view'"
    )
    with psycopg.connect(database, autocommit=True) as client:
        client.execute("PREPARE reads AS SELECT count(*) FROM v")
        client.execute("EXECUTE reads")

        carry(connection)

        assert one(client, "EXECUTE reads") == 5

    connection.execute("INSERT INTO v (amount) VALUES (10)")
    assert one(connection, "SELECT note FROM orders WHERE amount = 10") == "of the view"
    with pytest.raises(psycopg.errors.WithCheckOptionViolation):
        connection.execute("UPDATE v SET amount = -1")


def test_a_plan_is_shown_for_a_view_that_needs_the_primary_key(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE VIEW v AS SELECT o.*, count(*) FROM orders o GROUP BY o.id;"
        "CREATE VIEW w AS SELECT id FROM v"
    )
    connection.execute("DROP SCHEMA restructure")

    shown = preview(connection, plan("orders"), read_table(connection, "orders"))

    texts = [step.text for step in shown.steps]
    assert 'ALTER VIEW "public"."w" SET SCHEMA "restructure_job_retired"' in texts
    assert [(thing.kind, thing.name) for thing in shown.carried] == [
        ("view", "public.v"),
        ("view", "public.w"),
    ]
