"""The inventory: what the swap would lose rolls it back, by name; what changes meanwhile is seen."""

from __future__ import annotations

import psycopg
import pytest

from restructure.errors import OperatorNeeded
from restructure.model.phase import Phase
from restructure.shape.carry import prepare
from tests.pipeline.moments import Gate
from tests.pipeline.test_cutover import plan, ready, type_of_id
from tests.pipeline.tool import Tool, run_to_live


def test_a_swap_that_would_lose_something_is_rolled_back_and_names_it(
    database: str, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready(database, connection)
    connection.execute("GRANT UPDATE (amount) ON items TO PUBLIC")
    connection.execute("COMMENT ON COLUMN items.code IS 'unique'")
    with monkeypatch.context() as forgetful:
        forgetful.setattr(prepare, "_carry_all", lambda *_, **__: None)
        with pytest.raises(OperatorNeeded) as lost:
            run_to_live(database, plan())
    assert "would have lost comment on items.code, grant of UPDATE to PUBLIC on items.amount" in (
        lost.value.message
    )
    assert type_of_id(connection) == "integer"
    assert run_to_live(database, plan()).phase == Phase.LIVE
    assert connection.execute(
        "SELECT col_description('items'::regclass, 2), attacl::text FROM pg_attribute"
        " WHERE attrelid = 'items'::regclass AND attname = 'amount'"
    ).fetchone() == ("unique", "{=w/" + connection.info.user + "}")


def test_what_changes_between_composing_and_the_lock_is_named_and_carried_by_the_next_try(
    database: str, connection: psycopg.Connection
) -> None:
    ready(database, connection)
    with Gate("cutover.before lock") as gate, Tool(database, plan()) as tool:
        tool.until(lambda: gate.reached)
        connection.execute("COMMENT ON INDEX items_code_key IS 'late'")
        gate.open()
        why = tool.not_yet("comment on index items_code_key")
        assert why.startswith("what hangs on the table changed just before the lock")
        assert tool.finish().phase == Phase.LIVE
    assert connection.execute(
        "SELECT obj_description('items_code_key'::regclass, 'pg_class')"
    ).fetchone() == ("late",)
