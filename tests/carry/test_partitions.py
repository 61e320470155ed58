"""Partitions move one by one, for ALTER TABLE … SET SCHEMA leaves them where they are."""

from __future__ import annotations

import psycopg
import pytest

from tests.carry.build import set_up, swap

PARTITIONED = """
CREATE SCHEMA parts;
CREATE TABLE {schema}.t (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE {leaves}.t_low PARTITION OF {schema}.t FOR VALUES FROM (0) TO (10)
    PARTITION BY RANGE (id);
CREATE TABLE {leaves}.t_lowest PARTITION OF {leaves}.t_low FOR VALUES FROM (0) TO (5);
CREATE TABLE {leaves}.t_high PARTITION OF {schema}.t FOR VALUES FROM (10) TO (20);
"""
PLAIN = "CREATE TABLE {schema}.t (id int PRIMARY KEY, note text);"


def places(connection: psycopg.Connection, schema: str) -> set[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p')",
        [schema],
    )
    return {name for (name,) in rows}


def test_each_partition_takes_the_place_of_the_one_of_its_name(
    connection: psycopg.Connection,
) -> None:
    set_up(connection, PARTITIONED.format(schema="public", leaves="parts"))
    connection.execute(
        PARTITIONED.replace("CREATE SCHEMA parts;", "").format(
            schema="restructure_job", leaves="restructure_job"
        )
    )
    connection.execute(
        "CREATE TABLE restructure_job.t_new PARTITION OF restructure_job.t"
        " FOR VALUES FROM (20) TO (30)"
    )
    connection.execute("ALTER TABLE parts.t_high SET (fillfactor = 50)")
    connection.execute("COMMENT ON TABLE parts.t_high IS 'high'")

    swap(connection, "t")

    assert places(connection, "public") == {"t", "t_new"}
    assert places(connection, "parts") == {"t_low", "t_lowest", "t_high"}
    assert places(connection, "restructure_job") == set()
    assert places(connection, "restructure_job_retired") == {"t", "t_low", "t_lowest", "t_high"}
    kept = connection.execute(
        "SELECT reloptions, obj_description(oid) FROM pg_class WHERE oid = 'parts.t_high'::regclass"
    ).fetchone()
    assert kept == (["fillfactor=50"], "high")


@pytest.mark.parametrize("table", ["t", "t_low", "t_lowest", "t_high"])
def test_every_retired_partition_refuses_writes(connection: psycopg.Connection, table: str) -> None:
    set_up(connection, PARTITIONED.format(schema="public", leaves="public"))
    connection.execute(PLAIN.format(schema="restructure_job"))

    swap(connection, "t")

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        connection.execute(f"UPDATE restructure_job_retired.{table} SET note = ''")
    assert "public.t" in (refused.value.diag.message_hint or "")


def test_a_plain_table_hands_its_storage_options_to_its_new_partitions(
    connection: psycopg.Connection,
) -> None:
    set_up(connection, PLAIN.format(schema="public"))
    connection.execute("ALTER TABLE t SET (fillfactor = 70), ALTER note SET STATISTICS 333")
    connection.execute(
        PARTITIONED.replace("CREATE SCHEMA parts;", "").format(
            schema="restructure_job", leaves="restructure_job"
        )
    )

    swap(connection, "t")

    options = connection.execute(
        "SELECT c.relname, c.reloptions, a.attstattarget FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND attname = 'note'"
        " WHERE relnamespace = 'public'::regnamespace ORDER BY relname"
    ).fetchall()
    assert options == [
        ("t", None, 333),
        ("t_high", ["fillfactor=70"], 333),
        ("t_low", None, 333),
        ("t_lowest", ["fillfactor=70"], 333),
    ]


def test_foreign_keys_of_the_root_and_of_a_single_partition_leave_the_retired_tables(
    connection: psycopg.Connection,
) -> None:
    set_up(connection, "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE q (id int PRIMARY KEY);")
    connection.execute(PARTITIONED.format(schema="public", leaves="public"))
    connection.execute("ALTER TABLE t ADD FOREIGN KEY (id) REFERENCES p")
    connection.execute("ALTER TABLE t_high ADD FOREIGN KEY (id) REFERENCES q")
    connection.execute(PLAIN.format(schema="restructure_job"))

    swap(connection, "t")

    keys = connection.execute("SELECT conname FROM pg_constraint WHERE contype = 'f'").fetchall()
    assert keys == []
