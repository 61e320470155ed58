"""Triggers under a writing load: they see every write of a client, once, and none of ours."""

from __future__ import annotations

import itertools
import random
import threading
import time

import psycopg

from restructure.model.phase import Phase
from tests.pipeline.tool import Tool
from tests.workload import PLAN, seed

AUDIT = """
CREATE TABLE audit (trigger name, op text, id bigint, amount int);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE seen record;
BEGIN
    IF TG_OP = 'DELETE' THEN seen := OLD; ELSE seen := NEW; END IF;
    INSERT INTO audit VALUES (TG_NAME, TG_OP, seen.id, seen.amount);
    RETURN seen;
END $$;
CREATE TRIGGER usual AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER early BEFORE INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit();
CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE OR DELETE ON items
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER always AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER replica AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit();
CREATE TRIGGER never AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit();
ALTER TABLE items ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER replica,
    DISABLE TRIGGER never;
"""
ACTING = ("always", "early", "late", "usual")
STATES = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'items'::regclass ORDER BY 1"

Write = tuple[str, int, int]


class Clients:
    """Each write has an amount of its own, so that it can be told in the audit."""

    def __init__(self, dsn: str, clients: int = 2) -> None:
        self.acknowledged: list[Write] = []
        self._dsn = dsn
        self._count = clients
        self._amounts = itertools.count(1_000_000)
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_writes(self, count: int) -> None:
        goal = len(self.acknowledged) + count
        while len(self.acknowledged) < goal and not self._failures:
            time.sleep(0.01)

    def check(self) -> None:
        if self._failures:
            raise self._failures[0]

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        rows = {n: n for n in range(1, 1_001) if n % self._count == number}
        fresh = itertools.count(10_000_000 + number, self._count)
        try:
            with psycopg.connect(self._dsn, autocommit=True) as session:
                while not self._stop.wait(0.002):
                    self._write(session, chance, rows, next(fresh))
        except BaseException as error:  # raised again by check
            self._failures.append(error)

    def _write(
        self, session: psycopg.Connection, chance: random.Random, rows: dict[int, int], new: int
    ) -> None:
        amount, old = next(self._amounts), chance.choice(sorted(rows))
        statement, row, write = chance.choice(
            (
                ("INSERT INTO items (id, amount) VALUES (%s, %s)", new, ("INSERT", new, amount)),
                ("UPDATE items SET amount = %s WHERE id = %s", old, ("UPDATE", old, amount)),
                ("DELETE FROM items WHERE id = %s", old, ("DELETE", old, rows[old])),
            )
        )
        values = {"INSERT": (row, amount), "UPDATE": (amount, row), "DELETE": (row,)}[write[0]]
        with session.transaction(force_rollback=chance.random() < 0.1) as transaction:
            session.execute(statement, values)
        if transaction.status is transaction.Status.COMMITTED:
            rows[row] = amount
            if write[0] == "DELETE":
                del rows[row]
            self.acknowledged.append(write)


def test_each_acknowledged_write_is_audited_once_across_the_swap(
    database: str, connection: psycopg.Connection
) -> None:
    seed(connection, 1_000)
    connection.execute("INSERT INTO items SELECT -n, NULL, n FROM generate_series(1, 20000) n")
    connection.execute(AUDIT)
    states = connection.execute(STATES).fetchall()

    with Clients(database) as clients:
        with Tool(database, PLAN.format(name="items")) as tool:
            assert tool.finish().phase == Phase.LIVE
        clients.wait_for_writes(200)
    clients.check()

    assert connection.execute(STATES).fetchall() == states
    seen: dict[str, list[Write]] = {}
    for name, *write in connection.execute("SELECT * FROM audit").fetchall():
        seen.setdefault(name, []).append(tuple(write))
    assert tuple(sorted(seen)) == ACTING
    expected = sorted(clients.acknowledged)
    for name in ACTING:
        assert sorted(seen[name]) == expected, name
