"""The retired table keeps nothing that acts on the rows that keep it in step."""

from __future__ import annotations

import psycopg
import pytest

from tests.carry.build import read, retire
from tests.carry.test_built_shadow import restructure

ACTING = """
CREATE SCHEMA restructure;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fired'; END $$;
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a int, PRIMARY KEY (id)) {partitions};
CREATE TRIGGER "x%" BEFORE INSERT OR UPDATE OR DELETE ON {member} FOR EACH ROW EXECUTE FUNCTION f();
CREATE TRIGGER y BEFORE INSERT ON t EXECUTE FUNCTION f();
CREATE CONSTRAINT TRIGGER z AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE RULE "r%" AS ON UPDATE TO {member} DO INSTEAD NOTHING;
CREATE POLICY "p%" ON t USING (false);
CREATE POLICY q ON {member} USING (false);
ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE {member} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE ROLE {role};
GRANT ALL ON SCHEMA restructure TO {role}; GRANT USAGE, CREATE ON SCHEMA public TO {role};
ALTER TABLE t OWNER TO {role}; ALTER TABLE {member} OWNER TO {role};
"""
PARTITIONED = {"partitions": "PARTITION BY RANGE (id); CREATE TABLE low PARTITION OF t DEFAULT"}


@pytest.mark.parametrize(
    ("variant", "member"), [({"partitions": ""}, "t"), (PARTITIONED, "low")], ids=["plain", "parts"]
)
def test_no_trigger_rule_or_policy_acts_on_the_retired_table(
    connection: psycopg.Connection, variant: dict[str, str], member: str
) -> None:
    role = f"owner_{connection.info.dbname}"
    connection.execute(ACTING.format(**variant, member=member, role=role))
    restructure(connection, "public.t", "ALTER COLUMN a SET DEFAULT 1")
    retire(connection, read(connection, "restructure_job_retired.t"))  # safe to repeat

    connection.execute(f"GRANT USAGE ON SCHEMA restructure_job_retired TO {role}")
    connection.execute(f"SET ROLE {role}; SET restructure.reverse = 'on'")
    for statement, rows in (
        ("INSERT INTO {} (id) VALUES (1)", 1),
        ("UPDATE {} SET a = 2", 1),
        ("DELETE FROM {}", 1),
    ):
        done = connection.execute(statement.format(f"restructure_job_retired.{member}"))
        assert done.rowcount == rows

    # a policy that does not act could still keep what it names from being dropped
    named = "SELECT polname FROM pg_policy JOIN pg_class c ON c.oid = polrelid"
    retired = " WHERE relnamespace = 'restructure_job_retired'::regnamespace"
    assert connection.execute(named + retired).fetchall() == []

    # and all of it acts on the table that serves
    assert connection.execute(f"UPDATE {member} SET a = 2").rowcount == 0
    with pytest.raises(psycopg.errors.RaiseException, match="fired"):
        connection.execute("INSERT INTO t DEFAULT VALUES")
