"""Expressions of the plan, read by PostgreSQL and printed back to mean the same anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import sql

from restructure.errors import PlanError
from restructure.model.relation import Relation
from restructure.plan.load import LoadedPlan
from restructure.plan.source import Path
from restructure.postgres.connect import Connection
from restructure.shape.casts import TypeFacts, base_type_sql, type_facts
from restructure.shape.deparse import canonical, printed
from restructure.shape.nodetree import judge
from restructure.shape.table import Column

_RESULT = "restructure expression"
_PROBE = "restructure_probe"
_SCRATCH = "restructure_scratch"

# Until PostgreSQL 15 a view's rule knows relations "old" and "new" of its own, for whose sake a
# table of that name is printed as old_1 or new_1. What stands in quotes is passed over.
_RULE_ALIAS = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\b(old|new)_1\.""")

_VIEW = """
SELECT r.ev_action::text, a.atttypid::int8, a.atttypmod, a.attcollation::int8
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.ev_class
WHERE r.ev_class = %s::oid AND a.attnum > 0
"""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that may be used. ``sql`` names functions, types and columns in full.

    ``reads`` are attribute numbers of the row it reads, 0 for the whole row; ``holds`` as in
    Judgement. ``type`` is of the expression as the plan wrote it, before the cast in ``sql``.
    """

    sql: str
    reads: frozenset[int]
    holds: int | None
    type: TypeFacts


@dataclass(frozen=True, slots=True)
class Target:
    """The column that an expression is to fill. ``like``: try on an empty copy of its table."""

    table: Relation
    column: str
    type_oid: int
    like: bool = False


class ExpressionReader:
    """Reads the plan's expressions over the rows of one table, seen under ``alias``.

    Probes are views in ``schema``, made in savepoints that are always rolled back.
    """

    def __init__(
        self, connection: Connection, loaded: LoadedPlan, over: Relation, alias: str, schema: str
    ) -> None:
        self._connection = connection
        self._loaded = loaded
        self._over = over
        self._alias = alias
        self._from = sql.SQL(" FROM {} AS {}").format(over.identifier, sql.Identifier(alias))
        self._schema = schema

    def fill(self, path: Path, text: str, target: Target) -> Expression:
        """Read an expression that fills ``target``.

        Raises PlanError, at its line, where it does not parse, is not fit, or its type has no
        assignment cast to the column's.
        """
        read = self._read(path, text)  # first: nothing is executed there
        cast_to = base_type_sql(self._connection, target.type_oid)
        printed_form = self._print(path, text, cast_to)
        self.try_assignment(path, text, target)
        return Expression(printed_form, *read)

    def condition(self, path: Path, text: str) -> Expression:
        """Read an expression that must be boolean. Raises PlanError as :meth:`fill` does."""
        read = self._read(path, text)
        if read[2].oid != psycopg.adapters.types["bool"].oid:
            raise PlanError(
                f"{_dotted(path)}: this is of type {read[2].name}, not a condition",
                place=self._loaded.place(*path),
            )
        return Expression(self._print(path, text, "boolean"), *read)

    def try_assignment(self, path: Path, text: str, target: Target) -> None:
        """Ask the server whether the expression may be assigned to the column, and no more.

        Runs an INSERT of no rows, for an assignment cast is looked up there and nowhere else.
        """
        table = target.table.identifier
        with self._connection.transaction(force_rollback=True):
            if target.like:  # an INSERT into the real one would lock it and fire its triggers
                scratch = sql.Identifier(self._schema, _SCRATCH)
                self._connection.execute(
                    sql.SQL("CREATE TABLE {} (LIKE {})").format(scratch, table)
                )
                table = scratch
            before = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT ((").format(
                table, sql.Identifier(target.column)
            )
            self._run(path, text, before, sql.SQL("\n)){} WHERE false").format(self._from))

    def assigned(self, path: Path, old: Column, new: Column, target: Target) -> str:
        """Column ``old`` of the row as it is, or cast to the type of ``new``.

        Raises PlanError where there is no assignment cast.
        """
        written = sql.Identifier(self._alias, old.name).as_string(self._connection)
        if (old.type_oid, old.type_sql) == (new.type_oid, new.type_sql):
            return written
        self.try_assignment(path, written, target)
        if old.type_oid == new.type_oid:
            return written
        return f"CAST({written} AS {base_type_sql(self._connection, new.type_oid)})"

    def _read(self, path: Path, text: str) -> tuple[frozenset[int], int | None, TypeFacts]:
        probe = sql.Identifier(self._schema, _PROBE)
        with self._connection.transaction(force_rollback=True):
            self._run(
                path,
                text,
                sql.SQL("CREATE VIEW {} AS SELECT ((").format(probe),
                sql.SQL("\n)) AS {}{}").format(sql.Identifier(_RESULT), self._from),
            )
            rows = self._connection.execute(_VIEW, [self._probe_oid()]).fetchall()
            if len(rows) != 1 or "{SETOPERATIONSTMT" in rows[0][0]:
                raise PlanError(
                    f"{_dotted(path)}: this is more than one expression",
                    place=self._loaded.place(*path),
                )
            tree, type_oid, modifier, collation = rows[0]
            judged = judge(self._connection, tree)
            facts = type_facts(self._connection, type_oid, modifier, collation)
        if judged.fault:
            at = text.lower().find(judged.culprit) if judged.culprit else 0
            raise PlanError(
                f"{_dotted(path)}: {judged.fault}",
                place=self._loaded.inside(path, max(at, 0)),
                hint=judged.hint,
            )
        return judged.reads, judged.holds, facts

    def _print(self, path: Path, text: str, type_sql: str) -> str:
        """The expression as PostgreSQL prints it, cast to ``type_sql``, columns with the alias.

        A second, empty relation beside the table makes PostgreSQL write the alias every time.
        """
        probe = sql.Identifier(self._schema, _PROBE)
        with self._connection.transaction(force_rollback=True):
            self._run(
                path,
                text,
                sql.SQL("CREATE VIEW {} AS SELECT CAST(((").format(probe),
                sql.SQL("\n)) AS {}) AS {}{} CROSS JOIN (SELECT) AS {}").format(
                    printed(type_sql),
                    sql.Identifier(_RESULT),
                    self._from,
                    sql.Identifier("restructure nothing"),
                ),
            )
            oid = self._probe_oid()
            with canonical(self._connection):
                row = self._connection.execute("SELECT pg_get_viewdef(%s::oid)", [oid]).fetchone()
            assert row is not None
        # a CASE stands on a line of its own
        definition = str(row[0]).removeprefix(" SELECT")
        definition = definition[: definition.rindex(f' AS "{_RESULT}"\n')].strip()
        if self._alias not in ("old", "new"):
            return definition
        return _RULE_ALIAS.sub(lambda found: f'"{found[1]}".' if found[1] else found[0], definition)

    def _probe_oid(self) -> int:
        row = self._connection.execute(
            "SELECT c.oid::int8 FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relname = %s",
            [self._schema, _PROBE],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _run(self, path: Path, text: str, before: sql.Composed, after: sql.Composed) -> None:
        statement = before + printed(text) + after
        try:
            # binary makes it the extended protocol, which refuses a second statement
            self._connection.execute(statement, binary=True)
        except psycopg.Error as error:
            start = len(before.as_string(self._connection))
            raise plan_error(error, self._loaded, path, text, start) from None


def plan_error(
    error: psycopg.Error, loaded: LoadedPlan, path: Path, text: str, start: int
) -> Exception:
    """The server's complaint about ``text``, which began at character ``start`` of its statement.

    Only complaints about what was asked become a PlanError; a lost connection, a lock not had,
    a missing privilege are returned as they are.
    """
    state = error.sqlstate or ""
    if (
        not state.startswith(("0A", "22", "2B", "3F", "42", "23", "55000", "54"))
        or state == "42501"
    ):
        return error
    diagnosis = error.diag
    position = diagnosis.statement_position or diagnosis.internal_position
    offset = int(position) - 1 - start if position else -1
    place = loaded.inside(path, offset) if 0 <= offset <= len(text) else loaded.place(*path)
    # the detail of a broken constraint would show a row
    hint = diagnosis.message_hint or (None if state.startswith("23") else diagnosis.message_detail)
    return PlanError(f"{_dotted(path)}: {diagnosis.message_primary}", place=place, hint=hint)


def _dotted(path: Path) -> str:
    return ".".join(str(step) for step in path)
