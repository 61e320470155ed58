"""Schemas as people have them, restructured while their clients go on, before, during and after.

Every row is compared with what a trigger has noted of each change, and pg_dump with itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from restructure.demo.server import Server
from restructure.model.phase import Phase
from restructure.model.wish import Wish
from restructure.runner import Runner
from restructure.shape.deparse import printed
from tests.carry.dumps import Entries, assert_same, entries
from tests.pipeline.shapes import Session, Writers, count, plan, run
from tests.pipeline.tool import Tool

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Schema:
    """``changed``: in which of the dump's entries the plan is meant to change what to what."""

    table: str
    steps: tuple[str, ...]
    reads: tuple[str, ...]
    alter: tuple[str, ...] = ()
    changed: tuple[tuple[str, str, str], ...] = ()


def some(table: str, also: str = "true") -> str:
    return f"id = (SELECT id FROM {table} WHERE {also} ORDER BY random() LIMIT 1)"


TENANT = "SET LOCAL ROLE ledger_app; SET LOCAL app.tenant = 3; "
TWO = "(SELECT id FROM people ORDER BY random() LIMIT 1 FOR KEY SHARE)"
SCHEMAS = {
    "shop": Schema(
        "orders",
        (
            "INSERT INTO orders (customer_id, state) VALUES (1 + floor(random() * 200), 'cart')",
            f"UPDATE orders SET state = 'placed' WHERE {some('orders')}",
            f"UPDATE open_orders SET note = 'seen' WHERE {some('open_orders')}",
            "WITH o AS (INSERT INTO orders (customer_id) VALUES (7) RETURNING id)"
            " INSERT INTO order_items SELECT id::int, 1, 5, 2 FROM o",
            f"DELETE FROM orders WHERE {some('orders')}",
            "SELECT spent_by(5), (SELECT count(*) FROM best_customers)",
        ),
        (
            "SELECT count(*) = (SELECT count(*) FROM orders) FROM order_totals",
            "SELECT spent_by(8) = (SELECT spent FROM best_customers WHERE id = 8)",
            "SELECT pg_typeof(max(id)) = 'bigint'::regtype FROM order_totals",
            "SELECT pg_typeof(max(last_order)) = 'bigint'::regtype FROM best_customers",
            "SELECT data_type = 'bigint' FROM information_schema.sequences"
            " WHERE sequence_name = 'orders_id_seq'",
        ),
        ("ALTER id TYPE bigint",),
        (
            ("orders; Type: TABLE;", "id integer NOT NULL", "id bigint NOT NULL"),
            ("orders_id_seq; Type: SEQUENCE;", "\n    AS integer", ""),
            ("order_totals; Type: VIEW;", "NULL::integer AS id", "NULL::bigint AS id"),
            ("best_customers; Type: VIEW;", "::integer AS last_order", "::bigint AS last_order"),
        ),
    ),
    "ledger": Schema(
        "entries",
        (
            TENANT + "INSERT INTO entries (account_id, amount, memo)"
            " VALUES (1 + floor(random() * 10), 1 + random() * 1000, 'app')",
            TENANT + f"UPDATE entries SET memo = memo || '!' WHERE {some('entries')}",
            TENANT + "SELECT count(*) FROM totals",
            f"DELETE FROM entries WHERE {some('entries', 'tenant_id = 4')}",
        ),
        (
            "SELECT count(DISTINCT tenant_id) >= 4 FROM balances",
            TENANT + "SELECT count(DISTINCT tenant_id) = 1 FROM entries",
        ),
    ),
    "events": Schema(
        "events",
        (
            "INSERT INTO events (kind) VALUES ('click'), ('view')",
            f"UPDATE events SET at = at + interval '31 days' WHERE {some('events')}",
            f"UPDATE events SET kind = 'click' WHERE {some('events')}",
            f"DELETE FROM events WHERE {some('events')}",
            "SELECT count(*) FROM events_by_day",
        ),
        (
            "SELECT sum(n) = (SELECT count(*) FROM events) FROM events_by_day",
            "SELECT count(*) > 0 FROM clicks",
            "SELECT count(*) > 0 FROM archive.events_old",
        ),
    ),
    "social": Schema(
        "people",
        (
            "INSERT INTO people (handle) VALUES ('n' || gen_random_uuid())",
            f"INSERT INTO follows SELECT a.id, b.id FROM {TWO} a, {TWO} b WHERE a.id <> b.id"
            " ON CONFLICT DO NOTHING",
            f"UPDATE people SET bio = 'new' WHERE {some('people')}",
            f"DELETE FROM people WHERE {some('people', 'id > 1500')}",
            "SELECT count(*) FROM profiles WHERE followers > 1",
        ),
        (
            "SELECT count(*) = (SELECT count(*) FROM people) FROM profiles",
            "SELECT count(*) = (SELECT count(*) FROM people) FROM invitations",
            "SELECT p.display_name LIKE '@%' FROM people p LIMIT 1",
            "SELECT count(*) = 0 FROM follows WHERE follower NOT IN (SELECT id FROM people)",
        ),
    ),
    "cms": Schema(
        "pages",
        (
            "INSERT INTO web.published (slug, title, body)"
            " VALUES ('s' || gen_random_uuid(), 'A rabbit', 'ran')",
            f"UPDATE pages SET body = body || ' hare' WHERE {some('pages')}",
            f"UPDATE web.drafts SET title = 'Draft of a fox' WHERE {some('web.drafts')}",
            f"DELETE FROM pages WHERE {some('pages')}",
            "SELECT count(*) FROM web.search('rabbit -hare')",
        ),
        (
            "SELECT count(*) = (SELECT count(*) FROM web.published"
            " WHERE title || body ~* '(hare|hares)') FROM web.search('hare')",
            "SELECT count(*) = 20 FROM web.front_page",
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_nothing_is_lost_and_nobody_is_disturbed(
    server: Server, database: str, connection: psycopg.Connection, name: str
) -> None:
    schema = SCHEMAS[name]
    for file in ("journal", name):
        run(connection, (FOLDER / f"{file}.sql").read_text())
    before = entries(server, database)
    expected = as_planned(before, schema)

    text = plan(schema.table, alter=list(schema.alter))
    with Writers(database, *schema.steps) as writers, Tool(database, text) as tool:
        writers.wait_for(20)
        job = tool.finish()
        writers.wait_for(20)
        writers.stop()

    assert job.phase == Phase.LIVE
    assert_same(expected, entries(server, database))
    assert_as_noted(connection, schema.table)
    for question in schema.reads:
        assert answer(connection, question) == (True,), question

    for wish, phase, dump in (
        (Wish(revert=True), Phase.REVERTED, before),
        (Wish(cutover=True), Phase.LIVE, expected),
    ):
        with Writers(database, *schema.steps) as writers:
            writers.wait_for(20)
            job = Runner(database, lambda *_: None, lambda *_: None).attend(job.name, wish)
            writers.wait_for(20)
            writers.stop()
        assert job.phase == phase
        assert_same(dump, entries(server, database))
        assert_as_noted(connection, schema.table)


def as_planned(found: Entries, schema: Schema) -> Entries:
    wanted = dict(found)
    for entry, old, new in schema.changed:
        (name,) = (name for name in found if name.startswith(f"Name: {entry}"))
        assert old in wanted[name]
        wanted[name] = wanted[name].replace(old, new, 1)
    return wanted


def answer(session: Session, question: str) -> object:
    """What the last of its statements returns."""
    with session.transaction():
        cursor = session.execute(printed(question))
        while cursor.nextset():
            pass
        return cursor.fetchone()


def assert_as_noted(session: Session, table: str) -> None:
    """Each row is as the last note about it says, and there is no other row."""
    noted = (
        "SELECT content FROM (SELECT DISTINCT ON (key) content FROM journal"
        " ORDER BY key, seq DESC) AS last WHERE content IS NOT NULL"
    )
    there = f"SELECT to_jsonb(t) FROM {table} t"
    assert count(session, f"SELECT count(*) FROM ({noted} EXCEPT ALL {there}) AS lost") == 0
    assert count(session, f"SELECT count(*) FROM ({there} EXCEPT ALL {noted}) AS more") == 0
    assert count(session, f"SELECT count(*) FROM {table}") > 0
