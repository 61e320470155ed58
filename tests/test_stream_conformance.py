"""Every stream connector through the port's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from connectors.pgoutput import open_stream
from restructure.model.names import Names
from tests.stream_contract import CONTRACT, Stage


@pytest.fixture
def pgoutput(database: str, connection: psycopg.Connection) -> Iterator[Stage]:
    connection.execute("CREATE TABLE items (id int PRIMARY KEY, note text)")
    names = Names.of(f"c-{connection.info.dbname.replace('_', '-')}")
    stage = Stage(connection, lambda: open_stream(database, names, {}))
    try:
        yield stage
    finally:
        stage.close()


@pytest.mark.every_version
@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_pgoutput(clause: Callable[[Stage], None], pgoutput: Stage) -> None:
    """The connector for this database's own WAL."""
    clause(pgoutput)
