"""Before the swap: give the shadow what the source has and rows do not show."""

from __future__ import annotations

from dataclasses import replace

from psycopg import sql

from restructure.model.names import Names
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script, Step
from restructure.shape.carry.comments import carry_comments, carry_sequence_comment
from restructure.shape.carry.family import column_heirs, column_origins, counterpart, family
from restructure.shape.carry.kind import Carrying
from restructure.shape.carry.kinds import CARRIED
from restructure.shape.carry.limits import carry_limits
from restructure.shape.carry.ownership import carry_grants, carry_owner
from restructure.shape.carry.sequences import successors
from restructure.shape.carry.settings import (
    carry_column_settings,
    carry_index_targets,
    carry_options,
)
from restructure.shape.carry.tripwire import create_tripwire_function
from restructure.shape.made import Shadow
from restructure.shape.table import Table


def prepare_shadow(
    connection: Connection,
    source: Table,
    shadow: Shadow,
    names: Names,
    *,
    by_create: bool = False,
    back: bool = False,
    trial: bool = False,
) -> list[Step]:
    """Carry owner, grants, comments, what kinds make ahead, and how far sequences may count;
    make the retired schema.

    Runs on ``connection`` in one transaction (a savepoint of the caller's where there is one)
    and returns what it ran, which is nothing when all is carried already: so it can
    be repeated, and must be repeated shortly before the swap, for people change grants
    meanwhile. Also makes the tripwire's function. Locks only the shadow, never the source.

    ``by_create``: comments, storage options and column settings that the plan's own DDL gave the
    shadow are kept, and filled in where it has the defaults. A clone to which ``alter`` was applied had
    them all before the clauses ran: options that a clause has reset must stay so, and comments,
    which no clause can set, are made equal to the source's as owner and grants are. ``back``: the
    shadow is the old table, which has its own settings already. ``trial``:
    all of it will be rolled back, so what takes long is only noted.
    """
    script = Script(connection)
    with connection.transaction():
        create_tripwire_function(connection)
        _make_schema(script, names.retired_schema)
        _carry_all(script, source, shadow, keep_comments=by_create)
        if by_create and not back:
            _carry_settings(script, source, shadow)
        carrying = replace(Carrying.of(connection, source, shadow, names), trial=trial)
        for kind in CARRIED:
            if kind.ahead is not None:
                kind.ahead(script, carrying)
    return script.steps


def _make_schema(script: Script, schema: str) -> None:
    known = script.connection.execute("SELECT to_regnamespace(quote_ident(%s))", [schema])
    if known.fetchone() == (None,):
        script.run(
            sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
            lock="none",
            why="the source retires into it",
        )


def _carry_all(script: Script, source: Table, shadow: Shadow, *, keep_comments: bool) -> None:
    old = family(script.connection, source.relation)
    origins = column_origins(source, shadow.mapping)
    columns = column_heirs(source, shadow.mapping)
    for member in family(script.connection, shadow.relation):
        target = member.relation
        taken = counterpart(target, shadow.relation, old)
        carry_owner(script, taken or source.relation, target)
        if taken is not None:
            carry_grants(script, taken, target, "TABLE", columns)
            carry_comments(script, taken, target, columns, keep=keep_comments)
    for giver, taker in successors(script.connection, source.relation, shadow.relation, origins):
        carry_limits(script, giver, taker)
        carry_grants(script, giver.relation, taker.relation, "SEQUENCE", {})
        carry_sequence_comment(script, giver.relation, taker.relation, keep=keep_comments)


def _carry_settings(script: Script, source: Table, shadow: Shadow) -> None:
    old = family(script.connection, source.relation)
    columns = column_heirs(source, shadow.mapping)
    for member in family(script.connection, shadow.relation):
        target = member.relation
        taken = counterpart(target, shadow.relation, old)
        if taken is not None:
            carry_index_targets(script, taken, target)
        carry_column_settings(script, taken or source.relation, target, columns)
        if not member.partitioned and (taken or not source.partitioned):
            carry_options(script, taken or source.relation, target)
