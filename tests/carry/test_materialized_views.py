"""Materialized views come to the new table filled from it, and never with more than they may hold."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import OperatorNeeded
from restructure.shape.carry.prepare import prepare_shadow
from tests.carry.build import NAMES
from tests.carry.reading import ORDERS, carry, composed, made, one, reasons, run


def test_a_materialized_view_is_as_fresh_as_the_last_preparation(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE MATERIALIZED VIEW m AS SELECT id FROM orders;"
        "CREATE MATERIALIZED VIEW n AS SELECT count(*) FROM m;"
        "CREATE MATERIALIZED VIEW empty AS SELECT count(*) FROM m WITH NO DATA"
    )
    source, shadow = made(connection)
    prepare_shadow(connection, source, shadow, NAMES)
    connection.execute("INSERT INTO restructure_job.orders (id) VALUES (7)")

    run(connection, composed(connection, source, shadow))

    assert one(connection, "SELECT count FROM n") == 6
    assert one(connection, "SELECT relispopulated FROM pg_class WHERE relname = 'empty'") is False
    assert one(connection, "SELECT reltuples FROM pg_class WHERE oid = 'm'::regclass") == 6
    connection.execute("INSERT INTO orders (customer) VALUES (8); REFRESH MATERIALIZED VIEW m")
    assert one(connection, "SELECT count(*) FROM m") == 7


def test_a_materialized_view_that_cannot_be_filled_is_named_but_no_value_of_a_row(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute(
        "CREATE MATERIALIZED VIEW m AS SELECT note FROM orders WHERE id = 1;"
        "CREATE UNIQUE INDEX m_note ON m (note)"
    )
    source, shadow = made(connection)
    connection.execute("ALTER TABLE restructure_job.orders DROP CONSTRAINT orders_pkey")
    connection.execute(
        "INSERT INTO restructure_job.orders (id, note) VALUES (1, 'secret'), (1, 'secret')"
    )

    with pytest.raises(OperatorNeeded) as refused:
        prepare_shadow(connection, source, shadow, NAMES)

    said = f"{refused.value.message} {refused.value.hint}"
    assert "materialized view public.m cannot be filled: UniqueViolation in m_note" in said
    assert "secret" not in said


@pytest.mark.parametrize("bypass", [False, True])
def test_a_materialized_view_whose_owner_may_not_see_every_row_is_refused(
    connection: psycopg.Connection, bypass: bool
) -> None:
    """Policies come to the new table only in the swap, so it would be filled with every row."""
    name = connection.info.dbname
    connection.execute(ORDERS)
    connection.execute(
        f"CREATE ROLE {name}_o {'BYPASSRLS' * bypass}; GRANT SELECT ON orders TO {name}_o;"
        f"GRANT CREATE, USAGE ON SCHEMA public TO {name}_o;"
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY few ON orders USING (id < 3);"
        f"SET ROLE {name}_o; CREATE VIEW v AS SELECT id FROM orders; RESET ROLE;"
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM v"
    )

    found = reasons(connection)

    assert [reason.partition(":")[0] for reason in found] == (
        [] if bypass else ["materialized view public.m"]
    )


def test_a_trial_notes_that_a_materialized_view_is_filled_but_does_not_fill_it(
    connection: psycopg.Connection,
) -> None:
    connection.execute(ORDERS)
    connection.execute("CREATE MATERIALIZED VIEW m AS SELECT id FROM orders")
    source, shadow = made(connection)

    steps = prepare_shadow(connection, source, shadow, NAMES, trial=True)

    assert any(step.text.startswith("REFRESH MATERIALIZED VIEW") for step in steps)
    populated = "SELECT relispopulated FROM pg_class WHERE oid = 'restructure_job.m'::regclass"
    assert one(connection, populated) is False


def test_another_table_shows_a_materialized_view_what_it_shows_its_owner(
    connection: psycopg.Connection,
) -> None:
    """Our sessions have row_security off, which makes a query fail that a policy would filter."""
    name = connection.info.dbname
    connection.execute(ORDERS)
    connection.execute(
        f"CREATE ROLE {name}_o; GRANT SELECT ON orders, customers TO {name}_o;"
        f"GRANT CREATE, USAGE ON SCHEMA public TO {name}_o;"
        "INSERT INTO customers VALUES (2, 'hidden');"
        "ALTER TABLE customers ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY few ON customers USING (id < 2);"
        f"SET ROLE {name}_o; CREATE MATERIALIZED VIEW m AS"
        " SELECT c.id FROM customers c CROSS JOIN orders WHERE orders.id = 1; RESET ROLE;"
        "SET row_security = off"
    )

    carry(connection)

    assert one(connection, "SELECT array_agg(id) FROM m") == [1]
    assert one(connection, "SHOW row_security") == "off"
