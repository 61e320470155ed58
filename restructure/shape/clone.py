"""An empty clone of the source, under the same names in another schema."""

from __future__ import annotations

from psycopg import sql

from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.postgres.script import Script
from restructure.shape.deparse import canonical, printed
from restructure.shape.foreign import LateConstraint, not_implied
from restructure.shape.indexes import Index, read_indexes
from restructure.shape.table import Table

_WHY = "the empty clone"


def clone_table(script: Script, source: Table, schema: str) -> dict[int, Relation]:
    """Make the source and its partitions again in ``schema``, without rows and indexes.

    Returns the clones by the OID of what they are clones of. Reads catalogs and takes ACCESS
    SHARE on the source, which disturbs nobody but ALTER TABLE.
    """
    connection = script.connection
    tree = source.tree
    with canonical(connection):
        rows = connection.execute(_MEMBERS, {"tables": [member.oid for member in tree]}).fetchall()
    facts = {row[0]: row[1:] for row in rows}
    clones: dict[int, Relation] = {}
    for member in tree:
        partition_key, bound, parent, options, method, space, settings = facts[member.oid]
        name = sql.Identifier(schema, member.name)
        # a partition must not bring an identity of its own: it gets that of the table above
        above = member is not tree[0] or (parent and connection.info.server_version >= 170000)
        identity = sql.SQL(" EXCLUDING IDENTITY" if above else "")
        statement = sql.SQL(
            "CREATE TABLE {} (LIKE {} INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS{}){}"
        ).format(
            name,
            member.identifier,
            identity,
            sql.SQL("").join(
                sql.SQL(word).format(printed(text))
                for word, text in (
                    (" PARTITION BY {}", partition_key),
                    (" USING {}", method),
                    (" WITH ({})", options),
                    (" TABLESPACE {}", space),
                )
                if text
            ),
        )
        script.run(statement, lock=f"ACCESS SHARE on {member}", why=_WHY)
        clones[member.oid] = _clone_of(connection, schema, member.name)
        if settings:
            script.run(
                sql.SQL("ALTER TABLE ONLY {} {}").format(name, printed(settings)),
                lock="none",
                why=_WHY,
            )
        if parent in clones:
            script.run(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} {}").format(
                    clones[parent].identifier, name, printed(bound)
                ),
                lock="none",
                why=_WHY,
            )
    _settle_identities(script, source, clones[source.relation.oid])
    return clones


def clone_indexes(script: Script, source: Table, clones: dict[int, Relation]) -> None:
    """Make the source's indexes and index-backed constraints on the clones, names kept."""
    tables = {table.oid: table for table in source.tree}
    indexes = {index.oid: index for index in read_indexes(script.connection, source.tree)}
    for index in indexes.values():
        clone = clones[index.table]
        script.run(index.create(clone), lock="none", why=_WHY)
        _attach(script, index, indexes, clones)
        for statement in index.settings(clone):
            script.run(statement, lock="none", why=_WHY)
    rows = script.connection.execute(
        "SELECT oid::int8, relreplident::text FROM pg_catalog.pg_class"
        " WHERE oid = ANY(%s::oid[]) AND relreplident IN ('f', 'n')",
        [list(tables)],
    ).fetchall()
    for oid, identity in rows:
        word = sql.SQL("FULL" if identity == "f" else "NOTHING")
        script.run(
            sql.SQL("ALTER TABLE {} REPLICA IDENTITY {}").format(clones[oid].identifier, word),
            lock="none",
            why=_WHY,
        )


def clone_late_constraints(
    script: Script,
    late: list[LateConstraint],
    clones: dict[int, Relation],
    parents: dict[int, Relation],
) -> None:
    """Make foreign keys (to stand-ins) and the constraints NOT VALID, which LIKE validates."""
    keys = [constraint for constraint in late if constraint.kind == "f"]
    others = [one for one in late if one.kind != "f" and not one.inherited]
    for constraint in (*others, *not_implied(keys)):
        clone = clones[constraint.table]
        references = None
        if constraint.kind == "f":
            references = parents[constraint.target].identifier.as_string(script.connection)
        else:
            script.run(constraint.drop(clone), lock="none", why=_WHY)
        script.run(
            constraint.add(clone, references=references, unchecked=False), lock="none", why=_WHY
        )
        remark = constraint.remark(clone)
        if remark is not None:
            script.run(remark, lock="none", why=_WHY)


def _attach(
    script: Script, index: Index, indexes: dict[int, Index], clones: dict[int, Relation]
) -> None:
    if index.parent not in indexes:  # none, or one of a table above the source
        return
    parent = indexes[index.parent]
    script.run(
        index.attach(clones[index.table], parent, clones[parent.table]), lock="none", why=_WHY
    )


def _clone_of(connection: Connection, schema: str, name: str) -> Relation:
    row = connection.execute(
        "SELECT c.oid::int8 FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s",
        [schema, name],
    ).fetchone()
    assert row is not None
    return Relation(row[0], schema, name)


def _settle_identities(script: Script, source: Table, clone: Relation) -> None:
    """Give identity sequences the source's types and names, by way of names that nobody has.

    LIKE makes them all bigint and writes the old bounds down as if they were chosen
    (generateSerialExtraStmts in parse_utilcmd.c), so that ALTER COLUMN TYPE would not widen them.
    """
    connection = script.connection
    old = connection.execute(_IDENTITIES, [source.relation.oid]).fetchall()
    wanted = {column: (name, kind) for column, name, kind in old}
    renames: dict[str, str] = {}
    for column, name, kind in connection.execute(_IDENTITIES, [clone.oid]).fetchall():
        if kind != wanted[column][1]:
            script.run(
                sql.SQL("ALTER SEQUENCE {} AS {}").format(
                    sql.Identifier(clone.schema, name), printed(wanted[column][1])
                ),
                lock="none",
                why="an identity's sequence keeps its type, and widens with its column",
            )
        if name != wanted[column][0]:
            renames[name] = wanted[column][0]
    passing = {name: f"restructure_passing_{i}" for i, name in enumerate(renames)}
    for before, after in [*passing.items(), *((passing[n], renames[n]) for n in renames)]:
        script.run(
            sql.SQL("ALTER SEQUENCE {} RENAME TO {}").format(
                sql.Identifier(clone.schema, before), sql.Identifier(after)
            ),
            lock="none",
            why="an identity's sequence keeps its name",
        )


_IDENTITIES = """
SELECT a.attname, s.relname, pg_catalog.format_type(q.seqtypid, NULL)
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.refobjid = %s AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'i'
ORDER BY a.attnum
"""

_OPTION = """quote_ident(split_part(o, '=', 1)) || '=' ||
             quote_literal(substr(o, strpos(o, '=') + 1))"""

_MEMBERS = f"""
SELECT c.oid::int8, CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
       pg_get_expr(c.relpartbound, c.oid),
       (SELECT inhparent::int8 FROM pg_inherits WHERE inhrelid = c.oid AND c.relispartition),
       concat_ws(', ', (SELECT string_agg({_OPTION}, ', ') FROM unnest(c.reloptions) o),
                 (SELECT string_agg('toast.' || {_OPTION}, ', ') FROM unnest(t.reloptions) o)),
       (SELECT quote_ident(amname) FROM pg_am WHERE oid = c.relam AND c.relkind = 'r'),
       (SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = c.reltablespace),
       (SELECT string_agg('ALTER COLUMN ' || quote_ident(a.attname) || x.setting, ', '
                          ORDER BY a.attnum, x.setting)
        FROM pg_attribute a CROSS JOIN LATERAL (VALUES
            (CASE WHEN coalesce(a.attstattarget, -1) >= 0
                  THEN ' SET STATISTICS ' || a.attstattarget END),
            (' SET (' || (SELECT string_agg({_OPTION}, ', ') FROM unnest(a.attoptions) o) || ')')
        ) AS x (setting)
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND x.setting IS NOT NULL)
FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
WHERE c.oid = ANY(%(tables)s::oid[])
"""
