"""The state schema: made on first use, versioned, dropped when no job is left."""

from __future__ import annotations

from psycopg import sql

from restructure.catalog.verification import TABLES as _VERIFICATION
from restructure.errors import OperatorNeeded, UsageError
from restructure.model.names import STATE_SCHEMA
from restructure.postgres.connect import Connection

VERSION = 2

_LOCK = 0x72657374
"""Advisory lock class ("rest"): one maker of the schema at a time, one runner per job."""

_CREATE = """
CREATE SCHEMA restructure;
CREATE TABLE restructure.version (version integer NOT NULL);

CREATE TABLE restructure.job (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL,
    phase         text NOT NULL DEFAULT 'planned',
    token         bigint NOT NULL DEFAULT 0,    -- raised by each new runner; an older one may write no more
    plan          text NOT NULL,                -- the file's text as it was last given
    plan_file     text NOT NULL,
    digest        text NOT NULL,                -- of the plan's meaning; another digest is another job
    source        oid NOT NULL,
    source_name   text NOT NULL,
    paused        boolean NOT NULL DEFAULT false,
    request       text,                         -- asked for from another session: see engine/work.py, obey
    error         jsonb,
    shadow        jsonb,
    reverse       jsonb,                        -- the retired table as what the reverse direction fills
    fingerprint   jsonb,                        -- of the table that clients use
    copy_snapshot pg_snapshot,                  -- what copy or last swap has surely seen: older truncations are void
    indexes_built integer NOT NULL DEFAULT 0,   -- of those set aside, in their order
    bulk_xid      xid8,                         -- snapshots older than this would not see the copied rows
    swap_xid      xid8,                         -- the swap transaction, to learn its fate after a crash
    swapped_at    timestamptz,
    aftermath     boolean NOT NULL DEFAULT false, -- the last swap has left something to do
    given_up      text,                         -- why there is no way back any more
    progress      jsonb NOT NULL DEFAULT '{}',
    receipt       jsonb,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX job_name ON restructure.job (name) WHERE phase NOT IN ('finalized', 'aborted');

CREATE TABLE restructure.stream (
    job       bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    direction text NOT NULL,
    position  text NOT NULL,                    -- all up to here is in the spool or already applied
    PRIMARY KEY (job, direction)
);

CREATE TABLE restructure.receipt (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job      bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    document jsonb NOT NULL
);

CREATE TABLE restructure.extent (
    job      bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    relation oid NOT NULL,
    filenode oid NOT NULL,
    blocks   bigint NOT NULL,
    PRIMARY KEY (job, relation)
);

CREATE TABLE restructure.chunk (
    job         bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    relation    oid NOT NULL,
    first_block bigint NOT NULL,
    end_block   bigint NOT NULL,
    rows        bigint NOT NULL,
    PRIMARY KEY (job, relation, first_block)
);

CREATE TABLE restructure.journal (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job    bigint NOT NULL REFERENCES restructure.job ON DELETE CASCADE,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    phase  text NOT NULL,
    event  text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);
"""


def exists(connection: Connection) -> bool:
    """Whether this database has our state schema. Raises UsageError where it is another role's."""
    schema = connection.execute(
        """SELECT has_schema_privilege(oid, 'USAGE'), pg_get_userbyid(nspowner), current_user
           FROM pg_namespace WHERE nspname = 'restructure'"""
    ).fetchone()
    if schema is None:
        return False
    allowed, owner, role = schema
    if not allowed:
        raise UsageError(
            f"the jobs of this database belong to {owner}, and {role} may not look at them",
            hint=f"Run as {owner}, or GRANT {owner} TO {role}.",
        )
    row = connection.execute("SELECT to_regclass('restructure.job') IS NOT NULL").fetchone()
    return bool(row and row[0])


def ensure(connection: Connection) -> None:
    """Create the schema where it is missing. Raises OperatorNeeded for another version's."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK,))
        if not exists(connection):
            connection.execute(_CREATE)
            connection.execute(_VERIFICATION)
            connection.execute("INSERT INTO restructure.version VALUES (%s)", (VERSION,))
            return
        row = connection.execute("SELECT version FROM restructure.version").fetchone()
    if row is None or row[0] != VERSION:
        raise OperatorNeeded(
            f"schema {STATE_SCHEMA} was made by another version of this tool",
            hint="Finish its jobs with that version, or use that version here.",
        )


def drop_if_idle(connection: Connection) -> bool:
    """Drop the schema when every job in it was aborted. Returns whether it was dropped."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK,))
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM restructure.job WHERE phase <> 'aborted')"
        ).fetchone()
        if row and row[0]:
            return False
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(STATE_SCHEMA)))
        return True


def try_attend(connection: Connection, job: int) -> bool:
    """Become the one runner of a job for as long as this session lasts."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK, job)).fetchone()
    return bool(row and row[0])


def attendant(connection: Connection, job: int) -> str | None:
    """Who runs a job now: the application name and address of that session, or None."""
    row = connection.execute(
        """
        SELECT a.application_name || coalesce(' from ' || a.client_addr::text, '') || ', pid ' || a.pid
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = %s AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """,
        (_LOCK, job),
    ).fetchone()
    return str(row[0]) if row else None
