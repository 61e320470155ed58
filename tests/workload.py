"""Writers that remember every acknowledged write, and the question every test finally asks.

Each writer owns its rows (``id % writers``), so its memory is the truth about them. The mix
has what hurts replication: key changes, delete and re-insert of one key, swaps of unique values,
upserts, savepoints, rollbacks, statements over many rows.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

CREATE = """
CREATE TABLE items (
    id     integer PRIMARY KEY,
    code   text UNIQUE,
    amount integer NOT NULL,
    body   text,
    flag   boolean
)
"""

PLAN = """
name: {name}
table: items
alter:
  - ALTER COLUMN id TYPE bigint
  - ADD COLUMN size bigint
  - DROP COLUMN flag
columns:
  size: length(body)
copy: {{workers: 2, chunk_target: 20ms}}
"""

Row = tuple[str | None, int]
Change = dict[int, Row | None]
Session = psycopg.Connection


def seed(session: Session, rows: int) -> None:
    """Fill the table; row ``n`` has code ``c<n>`` and amount ``n``."""
    session.execute(CREATE)
    session.execute(
        "INSERT INTO items SELECT n, 'c' || n, n, repeat('x', 40), true FROM generate_series(1, %s) n",
        (rows,),
    )
    session.execute("ANALYZE items")


@dataclass
class Writer:
    """One client and what it knows: id → (code, amount)."""

    number: int
    writers: int
    chance: random.Random
    rows: dict[int, Row] = field(default_factory=dict)
    fresh: int = 0
    acknowledged: int = 0
    longest: float = 0.0

    def new_id(self) -> int:
        self.fresh += 1
        return 10_000_000 + self.fresh * self.writers + self.number

    def some(self, count: int = 1) -> list[int]:
        return self.chance.sample(sorted(self.rows), min(count, len(self.rows)))

    def amount(self) -> int:
        return self.chance.randrange(1_000_000)


def insert(writer: Writer, session: Session) -> Change:
    number, amount = writer.new_id(), writer.amount()
    session.execute(
        "INSERT INTO items (id, code, amount, body) VALUES (%s, %s, %s, 'new')",
        (number, f"c{number}", amount),
    )
    return {number: (f"c{number}", amount)}


def update(writer: Writer, session: Session) -> Change:
    amount = writer.amount()
    change: Change = {}
    for number in writer.some(writer.chance.choice((1, 1, 5))):
        session.execute("UPDATE items SET amount = %s WHERE id = %s", (amount, number))
        change[number] = (writer.rows[number][0], amount)
    return change


def update_many(writer: Writer, session: Session) -> Change:
    numbers = writer.some(21)
    session.execute("UPDATE items SET amount = amount + 1 WHERE id = ANY(%s)", (numbers,))
    return {number: (writer.rows[number][0], writer.rows[number][1] + 1) for number in numbers}


def delete(writer: Writer, session: Session) -> Change:
    numbers = writer.some()
    session.execute("DELETE FROM items WHERE id = ANY(%s)", (numbers,))
    return dict.fromkeys(numbers)


def rekey(writer: Writer, session: Session) -> Change:
    change: Change = {}
    for number in writer.some():
        new = writer.new_id()
        session.execute("UPDATE items SET id = %s WHERE id = %s", (new, number))
        change |= {number: None, new: writer.rows[number]}
    return change


def reinsert(writer: Writer, session: Session) -> Change:
    change: Change = {}
    for number in writer.some():
        code, amount = writer.rows[number][0], writer.amount()
        session.execute("DELETE FROM items WHERE id = %s", (number,))
        session.execute(
            "INSERT INTO items (id, code, amount, body) VALUES (%s, %s, %s, 'again')",
            (number, code, amount),
        )
        change[number] = (code, amount)
    return change


def swap_codes(writer: Writer, session: Session) -> Change:
    """Two rows exchange a unique value: at no moment outside are they in conflict."""
    pair = writer.some(2)
    if len(pair) < 2:
        return {}
    one, two = pair
    (code_one, amount_one), (code_two, amount_two) = writer.rows[one], writer.rows[two]
    session.execute("UPDATE items SET code = NULL WHERE id = %s", (one,))
    session.execute("UPDATE items SET code = %s WHERE id = %s", (code_one, two))
    session.execute("UPDATE items SET code = %s WHERE id = %s", (code_two, one))
    return {one: (code_two, amount_one), two: (code_one, amount_two)}


def upsert(writer: Writer, session: Session) -> Change:
    amount = writer.amount()
    number = writer.some()[0] if writer.rows and writer.chance.random() < 0.5 else writer.new_id()
    session.execute(
        "INSERT INTO items (id, code, amount, body) VALUES (%s, %s, %s, 'up')"
        " ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount",
        (number, f"c{number}" if number not in writer.rows else None, amount),
    )
    code = writer.rows[number][0] if number in writer.rows else f"c{number}"
    return {number: (code, amount)}


def savepoint(writer: Writer, session: Session) -> Change:
    """What is rolled back to a savepoint never was."""
    session.execute("SAVEPOINT inner_part")
    update_many(writer, session)
    insert(writer, session)
    session.execute("ROLLBACK TO inner_part")
    return update(writer, session)


MIX: tuple[Callable[[Writer, Session], Change], ...] = (
    insert, insert, update, update, update, update, update_many, delete,
    rekey, reinsert, swap_codes, upsert, savepoint,
)  # fmt: skip


class Workload:
    """Writers in threads. Reads of their memory are right after :meth:`stop`.

    ``bears_crashes``: writers come back after the server was away, and look whether what they were
    committing then was committed.
    """

    def __init__(
        self,
        dsn: str,
        rows: int,
        *,
        writers: int = 3,
        seed: int | None = None,
        pause: float = 0.003,
        bears_crashes: bool = False,
    ) -> None:
        self.seed = random.randrange(1 << 30) if seed is None else seed
        print(f"workload seed {self.seed}")
        self.writers = [
            Writer(number, writers, random.Random(self.seed + number)) for number in range(writers)
        ]
        for writer in self.writers:
            writer.rows = {
                n: (f"c{n}", n) for n in range(1, rows + 1) if n % writers == writer.number
            }
        self.failures: list[BaseException] = []
        self._dsn = dsn
        self._pause = pause
        self._bears_crashes = bears_crashes
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(writer,)) for writer in self.writers
        ]

    def __enter__(self) -> Workload:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    @property
    def acknowledged(self) -> int:
        return sum(writer.acknowledged for writer in self.writers)

    def wait_for_writes(self, count: int) -> None:
        """Until ``count`` more transactions are acknowledged."""
        goal = self.acknowledged + count
        while self.acknowledged < goal:
            if self.failures:
                raise self.failures[0]
            time.sleep(0.01)

    def expected(self) -> dict[int, Row]:
        return {number: row for writer in self.writers for number, row in writer.rows.items()}

    def assert_complete(self, session: Session) -> None:
        """Every acknowledged write is in the new table, and nothing else is."""
        if self.failures:
            raise self.failures[0]
        found = {
            number: (code, amount)
            for number, code, amount in session.execute(
                "SELECT id, code, amount FROM items"
            ).fetchall()
        }
        expected = self.expected()
        wrong = {
            n: (found.get(n), expected.get(n))
            for n in found.keys() | expected.keys()
            if found.get(n) != expected.get(n)
        }
        assert not wrong, (
            f"seed {self.seed}: {len(wrong)} of {len(expected)} rows differ, such as {list(wrong.items())[:5]}"
        )
        transformed = session.execute(
            "SELECT count(*) FROM items WHERE size <> length(body)"
        ).fetchone()
        assert transformed == (0,)

    def _run(self, writer: Writer) -> None:
        try:
            session = self._connect()
            while not self._stop.wait(self._pause):
                try:
                    self._transact(writer, session)
                except psycopg.OperationalError as lost:
                    if not self._bears_crashes:
                        raise
                    session = self._reconnect()
                    self._find_out(writer, session, lost)
            session.close()
        except BaseException as error:  # raised again by assert_complete
            self.failures.append(error)

    def _connect(self) -> Session:
        return psycopg.connect(self._dsn, autocommit=True, application_name="client")

    def _reconnect(self) -> Session:
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._connect()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, "the server did not come back"
                time.sleep(0.05)

    def _find_out(self, writer: Writer, session: Session, lost: BaseException) -> None:
        """Whether the transaction whose answer was lost was committed: all of it, or nothing."""
        change: Change = getattr(lost, "uncertain", {})
        found: Change = dict.fromkeys(change)
        for number, code, amount in session.execute(
            "SELECT id, code, amount FROM items WHERE id = ANY(%s)", (list(change),)
        ).fetchall():
            found[number] = (code, amount)
        if found == change:
            self._learn(writer, change)
        else:
            assert found == {number: writer.rows.get(number) for number in change}, (
                f"seed {self.seed}: half of a transaction was committed"
            )

    def _transact(self, writer: Writer, session: Session) -> None:
        operation = writer.chance.choice(MIX)
        began = time.monotonic()
        change: Change = {}
        try:
            with session.transaction() as transaction:
                change = operation(writer, session)
                if writer.chance.random() < 0.05:
                    change = {}
                    raise psycopg.Rollback(transaction)
        except psycopg.OperationalError as lost:
            lost.uncertain = change  # type: ignore[attr-defined]
            raise
        writer.longest = max(writer.longest, time.monotonic() - began)
        self._learn(writer, change)
        writer.acknowledged += 1

    def _learn(self, writer: Writer, change: Change) -> None:
        for number, row in change.items():
            if row is None:
                writer.rows.pop(number, None)
            else:
                writer.rows[number] = row
