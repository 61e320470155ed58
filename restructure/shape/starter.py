"""A first plan for a table, with everything explained in comments."""

from __future__ import annotations

import re
from collections.abc import Sequence

from restructure.model.names import LONGEST_JOB_NAME
from restructure.postgres.connect import Connection
from restructure.shape.table import Column, Table

_HEAD = """\
# What `restructure` is to make of {table}. Check it with `restructure check`, see every
# statement with `restructure plan`, and do it with `restructure run`.
# Connections do not belong here: they come from --dsn, RESTRUCTURE_DSN, DATABASE_URL or libpq.

name: {name}
table: {quoted}

# Clauses of ALTER TABLE, applied by PostgreSQL itself to an empty clone.
# (For a whole new definition, partitions for example, write `create: |` and DDL instead.)
alter:{clauses}
"""

_TAIL = """
# What fills a new column: SQL over the old row. Columns not named here keep their values.
# columns:
#   {example}_text: {example}::text

# What fills an old column that is gone, over the new row, should you go back.
# reverse:
#   {example}: {example}_text

# Rows that do not match are left behind.
# where: {example} IS NOT NULL

# The rest may be left out; these are the defaults.
# copy: {{workers: 2, chunk_target: 500ms}}
# throttle: {{wal_retained: 20GB, wal_limit: 60GB}}   # also, if wanted: replica_lag: 10s, query: …
# verify: {{mode: full}}
# cutover: {{lock_timeout: 300ms, lock_budget: 1s, attempts: 60, revert_window: 24h}}
"""


def starter_plan(connection: Connection, table: Table, clauses: Sequence[str] = ()) -> str:
    """A plan (YAML) for ``table`` with these ALTER TABLE clauses, ready to load and to edit."""
    name = re.sub(r"[^a-z0-9]+", "-", table.relation.name.lower()).strip("-")
    lines = [f"\n  - {_quoted(clause)}" for clause in clauses]
    if not lines:
        lines = [" []  # take away the [] when you add a clause below"]
        widen = [c.name for c in table.columns if _narrow_key(c, table)]
        lines += [f"\n#  - ALTER COLUMN {_sql(connection, c)} TYPE bigint" for c in widen]
        lines += ["\n#  - ADD COLUMN new_column text", "\n#  - DROP COLUMN old_column"]
    example = next((c.name for c in table.columns if re.fullmatch("[a-z_][a-z0-9_]*", c.name)), "c")
    head = _HEAD.format(
        table=_plain(str(table.relation)),
        name=name[:LONGEST_JOB_NAME].strip("-") or "job",
        quoted=_quoted(
            f"{_sql(connection, table.relation.schema)}.{_sql(connection, table.relation.name)}"
        ),
        clauses="".join(lines),
    )
    columns = "".join(
        f"#   {_plain(column.name)}  {_described(column)}\n" for column in table.columns
    )
    return f"{head}\n# The columns as they are:\n{columns}{_TAIL.format(example=example)}"


def _narrow_key(column: Column, table: Table) -> bool:
    return column.type_sql in ("integer", "smallint") and column.name in {k.name for k in table.key}


def _described(column: Column) -> str:
    words = [_plain(column.type_sql)]
    if column.not_null:
        words.append("NOT NULL")
    if column.generated:
        words.append("GENERATED")
    if column.identity:
        words.append("IDENTITY")
    return " ".join(words)


def _sql(connection: Connection, name: str) -> str:
    """An identifier as SQL, quoted only where it must be."""
    row = connection.execute("SELECT quote_ident(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def _quoted(text: str) -> str:
    """A YAML scalar: plain where that is certain to be read back, double-quoted else."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.()]*( [A-Za-z0-9_.()]+)*", text):
        return text
    escaped = "".join(_escape(character) for character in text)
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"


def _plain(text: str) -> str:
    """For a comment: one line, whatever a name holds."""
    return "".join(c if c.isprintable() else "?" for c in text)
