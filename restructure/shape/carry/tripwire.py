"""The tripwire: after the swap, nobody but our reverse merge writes to the retired table.

A view, a rule or a function bound by OID would otherwise go on writing to the table that
nobody reads any more. Revoking rights is not enough, for views run as their owner.
"""

from __future__ import annotations

from psycopg import sql

from restructure.model.names import STATE_SCHEMA
from restructure.model.relation import Relation
from restructure.postgres.connect import REVERSE_SETTING, Connection
from restructure.postgres.script import Step

FUNCTION = sql.Identifier(STATE_SCHEMA, "tripwire")
TRIGGER = "restructure_tripwire"

_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $tripwire$
BEGIN
    IF current_setting({setting}, true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION '%.% was replaced by %, and is kept only to go back to',
                        quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME), TG_ARGV[0]
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Write to %s. What still writes here was bound to the old table: '
                                'a view, a function body or a rule. Create it again.', TG_ARGV[0]);
    END IF;
    RETURN NULL;
END
$tripwire$
"""


def create_tripwire_function(connection: Connection) -> None:
    """Create the trigger function in schema ``restructure``, which must exist.

    Belongs to set-up: inside the swap only the triggers are made. An existing one is kept, so
    that a second job neither needs to own it nor touches triggers that use it.
    """
    known = connection.execute(
        "SELECT to_regprocedure(%s)", [f"{STATE_SCHEMA}.tripwire()"]
    ).fetchone()
    if known and known[0]:
        return
    connection.execute(
        sql.SQL(_FUNCTION).format(function=FUNCTION, setting=sql.Literal(REVERSE_SETTING))
    )


def tripwire_step(connection: Connection, retired: Relation, final: Relation) -> Step:
    """The trigger on ``retired`` (named by where it is then) that points to ``final``.

    Statement triggers fire only for the table that a statement names, so each leaf needs one.
    """
    create = sql.SQL(
        "CREATE TRIGGER {trigger} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {retired} "
        "FOR EACH STATEMENT EXECUTE FUNCTION {function}({final})"
    ).format(
        trigger=sql.Identifier(TRIGGER),
        retired=retired.identifier,
        function=FUNCTION,
        final=sql.Literal(str(final)),
    )
    return Step.of(
        connection,
        create,
        lock=f"SHARE ROW EXCLUSIVE on {retired}",
        why="only our reverse merge may write to the retired table",
    )


def has_tripwire(connection: Connection, table: Relation) -> bool:
    """Whether ``table`` retired once."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = %s AND tgname = %s)",
        [table.oid, TRIGGER],
    ).fetchone()
    return bool(row and row[0])


def drop_tripwire_step(connection: Connection, table: Relation) -> Step:
    """Clients write to ``table`` again."""
    return Step.of(
        connection,
        sql.SQL("DROP TRIGGER {} ON {}").format(sql.Identifier(TRIGGER), table.identifier),
        lock=f"ACCESS EXCLUSIVE on {table}",
        why="it is not retired any more",
    )
