"""The publication: which changes a slot delivers, and whether it is still as we made it."""

from __future__ import annotations

from psycopg import errors, sql

from restructure.errors import Finding, NotNow, PreflightRefused
from restructure.model.relation import KeyColumn, Watched
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script

_MARK = "made by restructure"
_GENERATED_PUBLISHED = 180000
"""From PostgreSQL 18 on, stored generated columns can be published."""


def create(script: Script, name: str, watched: Watched) -> None:
    """Create the publication and try what clients do to its tables. Run inside a transaction.

    Every leaf is listed by itself: a truncation of one leaf is not sent when changes are
    published as the root's (pgoutput.c, pgoutput_truncate). EXPLAIN plans and starts an
    UPDATE and a DELETE, which is where the server compares replica identity and column list
    (execReplication.c, CheckCmdReplicaIdentity), and fires no statement trigger.

    Raises PreflightRefused where clients' writes would fail from now on, NotNow where a
    relation is locked. Either way the caller rolls back, and nothing was changed.
    """
    generated = _generated(script.connection, watched)
    script.run("SET LOCAL lock_timeout = '5s'", lock="none", why="never wait long in a lock queue")
    try:
        script.run(
            _create(name, watched, generated),
            lock=f"SHARE UPDATE EXCLUSIVE on {_named(watched)}",
            why="announce which keys are wanted; readers and writers go on",
        )
        script.run(
            sql.SQL("COMMENT ON PUBLICATION {} IS {}").format(
                sql.Identifier(name), sql.Literal(_MARK)
            ),
            lock="none",
            why="so that a later run knows it as ours",
        )
        for relation in watched.relations:
            for statement in (
                sql.SQL("EXPLAIN UPDATE {} SET {} = DEFAULT WHERE false").format(
                    relation.identifier, sql.Identifier(watched.key[0].name)
                ),
                sql.SQL("EXPLAIN DELETE FROM {} WHERE false").format(relation.identifier),
            ):
                script.run(
                    statement,
                    lock=f"ROW EXCLUSIVE on {relation}",
                    why="fail here instead of in the clients; no row is touched",
                )
    except (errors.InvalidColumnReference, errors.ObjectNotInPrerequisiteState) as error:
        raise _refusal(
            f"with our publication, clients' writes would fail: {_told(error)}",
            "Give the table a replica identity that is exactly the key: its primary key, or a "
            "unique index on NOT NULL columns with ALTER TABLE … REPLICA IDENTITY USING INDEX.",
        ) from error
    except errors.LockNotAvailable as error:
        raise NotNow(
            f"a lock on {_named(watched)} was not had within 5 s",
            hint="Maintenance such as VACUUM, CREATE INDEX or ALTER TABLE is running there.",
        ) from error


def drop(script: Script, name: str) -> None:
    """Drop the publication if there is one and we made it."""
    if is_ours(script.connection, name):
        script.run(
            sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(name)),
            lock="none on the tables",
            why="nobody reads it any more",
        )


def is_ours(connection: Connection, name: str) -> bool:
    """Whether a publication of that name exists and carries our mark."""
    row = connection.execute(
        "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = %s",
        [name],
    ).fetchone()
    return row is not None and row[0] == _MARK


def refuse_foreign(connection: Connection, name: str) -> None:
    """Raise PreflightRefused where the name is taken by a publication that is not ours."""
    if identity(connection, name) is not None and not is_ours(connection, name):
        raise _refusal(
            f"a publication named {name} exists and is not ours",
            "Drop it if nobody needs it, or give the job another name.",
        )


def identity(connection: Connection, name: str) -> str | None:
    """What the publication is, as a text that differs after any change; None if there is none.

    Holds the OIDs and xmins of its rows in pg_publication, pg_publication_rel and
    pg_publication_namespace, so one that was dropped and made again is another one. That
    matters because decoding uses the publication as of each change, and PostgreSQL 18
    silently skips changes made while there was none.
    """
    row = connection.execute(
        """
        SELECT jsonb_build_object(
                 'publication', to_jsonb(p) || jsonb_build_object('xmin', p.xmin::text),
                 'relations', (SELECT jsonb_agg(to_jsonb(r) || jsonb_build_object(
                                        'xmin', r.xmin::text) ORDER BY r.oid)
                                 FROM pg_publication_rel r WHERE r.prpubid = p.oid),
                 'schemas', (SELECT jsonb_agg(to_jsonb(n) || jsonb_build_object(
                                      'xmin', n.xmin::text) ORDER BY n.oid)
                               FROM pg_publication_namespace n WHERE n.pnpubid = p.oid))::text
          FROM pg_publication p WHERE p.pubname = %s
        """,
        [name],
    ).fetchone()
    return row[0] if row else None


def covers(connection: Connection, name: str, watched: Watched) -> bool:
    """Whether the publication is what :func:`create` would make for ``watched``."""
    row = connection.execute(
        """
        SELECT NOT p.puballtables AND p.pubinsert AND p.pubupdate AND p.pubdelete
               AND p.pubtruncate AND NOT p.pubviaroot
               AND NOT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = p.oid),
               coalesce(to_jsonb(p) ->> 'pubgencols', 'n'),
               ARRAY(SELECT ROW(r.prrelid, r.prqual IS NULL, ARRAY(
                              SELECT a.attname FROM unnest(r.prattrs) AS k(n)
                                JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.n
                               ORDER BY a.attname COLLATE "C")::text)::text
                       FROM pg_publication_rel r WHERE r.prpubid = p.oid),
               ARRAY(SELECT ROW(w.oid, true, ARRAY(
                              SELECT k.name FROM unnest(%(key)s::name[]) AS k(name)
                               ORDER BY k.name COLLATE "C")::text)::text
                       FROM unnest(%(oids)s::oid[]) AS w(oid))
          FROM pg_publication p WHERE p.pubname = %(name)s
        """,
        {
            "name": name,
            "key": list(watched.published),
            "oids": [relation.oid for relation in watched.relations],
        },
    ).fetchone()
    if row is None:
        return False
    options, generated, published, expected = row
    wanted = "s" if _generated(connection, watched) else "n"
    return bool(options) and generated == wanted and set(published) == set(expected)


def without_binary_form(connection: Connection, key: tuple[KeyColumn, ...]) -> list[str]:
    """The key columns whose type has no send function, so their values cannot be carried."""
    oids = [column.type_oid for column in key]
    rows = connection.execute(
        "SELECT oid FROM pg_type WHERE oid = ANY(%s::oid[]) AND typsend <> 0", [oids]
    )
    able = {row[0] for row in rows}
    return [f"{column.name} ({column.type_sql})" for column in key if column.type_oid not in able]


def _create(name: str, watched: Watched, generated: bool) -> sql.Composed:
    columns: sql.Composable = sql.SQL("")
    if watched.published:
        names = sql.SQL(", ").join(map(sql.Identifier, watched.published))
        columns = sql.SQL(" ({})").format(names)
    tables = sql.SQL(", ").join(
        sql.SQL("ONLY {}{}").format(relation.identifier, columns) for relation in watched.relations
    )
    options: sql.Composable = sql.SQL(
        "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
    )
    if generated:
        options += sql.SQL(", publish_generated_columns = stored")
    return sql.SQL("CREATE PUBLICATION {}{}{} WITH ({})").format(
        sql.Identifier(name),
        sql.SQL(" FOR TABLE ") if watched.relations else sql.SQL(""),
        tables,
        options,
    )


def _generated(connection: Connection, watched: Watched) -> bool:
    """Whether stored generated columns must be published. Raises PreflightRefused before 18."""
    key = [column.name for column in watched.identity or watched.key]
    row = connection.execute(
        """
        SELECT coalesce(bool_or(attname = ANY(%(key)s)), false), count(*) > 0
          FROM pg_attribute
         WHERE attrelid = ANY(%(oids)s::oid[]) AND attgenerated = 's' AND NOT attisdropped
        """,
        {"key": key, "oids": [relation.oid for relation in watched.relations]},
    ).fetchone()
    in_key, anywhere = row or (False, False)
    if connection.info.server_version >= _GENERATED_PUBLISHED:
        return bool(in_key or (watched.full_identity and anywhere))
    if in_key:
        raise _refusal(
            f"a key column of {_named(watched)} is generated",
            "PostgreSQL before 18 does not publish generated columns: use another unique index "
            "as replica identity.",
        )
    return False


def _named(watched: Watched) -> str:
    named = ", ".join(str(relation) for relation in watched.relations[:3]) or "no relation"
    more = len(watched.relations) - 3
    return f"{named} and {more} more" if more > 0 else named


def _told(error: errors.Error) -> str:
    primary = error.diag.message_primary or type(error).__name__
    return f"{primary} ({error.diag.message_detail})" if error.diag.message_detail else primary


def _refusal(message: str, hint: str) -> PreflightRefused:
    return PreflightRefused([Finding("publication", message, hint)])
