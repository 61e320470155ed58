"""How a view, a materialized view or a function is made again: as PostgreSQL prints it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from restructure.errors import NotNow
from restructure.model.relation import Relation
from restructure.postgres.connect import Connection
from restructure.shape.carry.closure import Reader
from restructure.shape.deparse import canonical, printed
from restructure.shape.indexes import read_indexes


@dataclass(frozen=True, slots=True)
class Recipe:
    """``create`` makes it, ``finish`` what belongs to it and may mention any of the others.

    ``checked``: whether its body is a parse tree, which must be right from the beginning; one
    that is a string may mention what does not exist.
    """

    create: sql.Composable
    finish: tuple[sql.Composable, ...]
    checked: bool = True


def recipe(connection: Connection, reader: Reader, target: Relation) -> Recipe:
    """Read how to make ``reader`` again as ``target``.

    To be called within Carrying.relative. Raises NotNow where it was dropped just now.
    """
    if reader.routine:
        return _routine(connection, reader, target)
    row = connection.execute(_RELATION, [reader.oid]).fetchone()
    if row is None or row[0] is None:
        raise NotNow(f"{reader.label} was dropped just now")
    definition, options, method, space, quoted = row
    create = sql.SQL("CREATE {kind} {target}{method}{options}{space} AS {query}{ending}").format(
        kind=reader.word,
        target=target.identifier,
        method=_clause("USING", method),
        options=sql.SQL(" WITH ({})").format(_assignments(options)) if options else sql.SQL(""),
        space=_clause("TABLESPACE", space),
        query=printed(definition.strip().removesuffix(";")),
        ending=sql.SQL(" WITH NO DATA" if reader.stored else ""),
    )
    finish = [
        *_defaults(connection, reader, target),
        *_rules_and_triggers(connection, reader, target, quoted),
        *_settings(connection, reader, target),
        *_comments(connection, reader, target),
    ]
    if reader.stored:
        for index in read_indexes(connection, [reader.relation]):
            finish += [index.create(target), *index.settings(target)]
    return Recipe(create, tuple(finish))


def checking_bodies(checked: bool) -> sql.Composed:
    """Whether PostgreSQL looks into the body of a routine that is created from here on."""
    return sql.SQL("SET LOCAL check_function_bodies = {}").format(
        sql.SQL("on" if checked else "off")
    )


def arguments(connection: Connection, reader: Reader) -> str:
    """The arguments of a routine, as they tell it from its namesakes."""
    row = connection.execute(_ARGUMENTS, [reader.oid]).fetchone()
    return str(row[0]) if row else ""


def signature(connection: Connection, reader: Reader) -> sql.Composable:
    """Its name with schema, and a routine's arguments with theirs."""
    if not reader.routine:
        return reader.relation.identifier
    with canonical(connection):
        text = arguments(connection, reader)
    return sql.SQL("{}({})").format(reader.relation.identifier, printed(text))


def _routine(connection: Connection, reader: Reader, target: Relation) -> Recipe:
    row = connection.execute(_ROUTINE, [reader.oid]).fetchone()
    if row is None or row[0] is None:
        raise NotNow(f"{reader.label} was dropped just now")
    definition, head, atomic, taking, comment = row
    if not definition.startswith(head):
        raise AssertionError(f"pg_get_functiondef printed {definition[:80]!r}")
    create = sql.SQL("CREATE {} {}{}").format(
        reader.word, target.identifier, printed(definition[len(head) :])
    )
    finish: tuple[sql.Composable, ...] = ()
    if comment is not None:
        text = sql.SQL("COMMENT ON {} {}({}) IS {}").format(
            reader.word, target.identifier, printed(taking), sql.Literal(comment)
        )
        finish = (text,)
    return Recipe(create, finish, checked=atomic)


def _defaults(connection: Connection, reader: Reader, target: Relation) -> Iterator[sql.Composed]:
    for column, expression in connection.execute(_DEFAULTS, [reader.oid]).fetchall():
        yield sql.SQL("ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}").format(
            target.identifier, sql.Identifier(column), printed(expression)
        )


def _rules_and_triggers(
    connection: Connection, reader: Reader, target: Relation, quoted: str
) -> Iterator[sql.Composable]:
    """Their definitions, with ``target`` in the place of the reader's own name.

    That stands, always with its schema, behind the first ``before`` after theirs (ruleutils.c).
    """
    rows = connection.execute(_BELONGING, {"oid": reader.oid}).fetchall()
    for head, before, definition in rows:
        place = definition.index(before + quoted, len(head) - 1) + len(before)
        yield sql.SQL("{}{}{}").format(
            printed(definition[:place]),
            target.identifier,
            printed(definition[place + len(quoted) :].rstrip(";")),
        )


def _settings(connection: Connection, reader: Reader, target: Relation) -> Iterator[sql.Composed]:
    """Storage, compression, statistics target and options of a materialized view's columns."""
    if not reader.stored:
        return
    for column, clause in connection.execute(_COLUMN_SETTINGS, [reader.oid]).fetchall():
        yield sql.SQL("ALTER MATERIALIZED VIEW {} ALTER COLUMN {} SET {}").format(
            target.identifier, sql.Identifier(column), printed(clause)
        )


def _comments(connection: Connection, reader: Reader, target: Relation) -> Iterator[sql.Composed]:
    for kind, name, text in connection.execute(_COMMENTS, [reader.oid] * 4).fetchall():
        what: sql.Composable
        if kind == "self":
            what = sql.SQL("{} {}").format(reader.word, target.identifier)
        elif kind == "COLUMN":
            what = sql.SQL("COLUMN {}.{}").format(target.identifier, sql.Identifier(name))
        else:
            what = sql.SQL("{} {} ON {}").format(
                sql.SQL("RULE" if kind == "RULE" else "TRIGGER"),
                sql.Identifier(name),
                target.identifier,
            )
        yield sql.SQL("COMMENT ON {} IS {}").format(what, sql.Literal(text))


def _clause(word: LiteralString, name: str | None) -> sql.Composable:
    if name is None:
        return sql.SQL("")
    return sql.SQL(" {} {}").format(sql.SQL(word), sql.Identifier(name))


def _assignments(options: Iterable[str]) -> sql.Composed:
    """``name = 'value'`` pairs; a name like toast.autovacuum_enabled is two identifiers."""
    pairs = (option.split("=", 1) for option in options)
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(*name.split(".")), sql.Literal(value))
        for name, value in pairs
    )


_RELATION = """
SELECT pg_catalog.pg_get_viewdef(c.oid),
       c.reloptions || ARRAY(SELECT 'toast.' || option FROM unnest(t.reloptions) AS option),
       m.amname, s.spcname,
       pg_catalog.format('%%I.%%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE c.oid = %s
"""

_ROUTINE = """
SELECT pg_catalog.pg_get_functiondef(p.oid),
       pg_catalog.format('CREATE OR REPLACE %%s %%I.%%I',
           CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, n.nspname, p.proname),
       p.prosqlbody IS NOT NULL, pg_catalog.pg_get_function_identity_arguments(p.oid),
       pg_catalog.obj_description(p.oid, 'pg_proc')
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = %s
"""

_ARGUMENTS = "SELECT pg_catalog.pg_get_function_identity_arguments(%s::oid)"

_DEFAULTS = """
SELECT a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_attrdef d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE d.adrelid = %s ORDER BY a.attnum
"""

_BELONGING = """
SELECT pg_catalog.format('CREATE RULE %%I ', rulename), ' TO ', pg_catalog.pg_get_ruledef(oid)
FROM pg_catalog.pg_rewrite WHERE ev_class = %(oid)s AND ev_type <> '1'
UNION ALL
SELECT pg_catalog.format('CREATE TRIGGER %%I ', tgname), ' ON ', pg_catalog.pg_get_triggerdef(oid)
FROM pg_catalog.pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal
ORDER BY 1
"""

_COLUMN_SETTINGS = """
SELECT a.attname, clause
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (VALUES
    (CASE WHEN a.attstorage <> t.typstorage THEN 'STORAGE ' || CASE a.attstorage
          WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'x' THEN 'EXTENDED'
          ELSE 'MAIN' END END),
    (CASE a.attcompression WHEN 'p' THEN 'COMPRESSION pglz' WHEN 'l' THEN 'COMPRESSION lz4' END),
    (CASE WHEN a.attstattarget >= 0 THEN 'STATISTICS ' || a.attstattarget END),
    ((SELECT '(' || string_agg(pg_catalog.format('%%I = %%L', split_part(o, '=', 1),
                                                 split_part(o, '=', 2)), ', ') || ')'
      FROM unnest(a.attoptions) AS o))) AS found (clause)
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND clause IS NOT NULL
ORDER BY a.attnum
"""

_COMMENTS = """
SELECT 'self', '', description FROM pg_catalog.pg_description
WHERE classoid = 'pg_catalog.pg_class'::regclass AND objoid = %s AND objsubid = 0
UNION ALL
SELECT 'COLUMN', a.attname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
WHERE d.classoid = 'pg_catalog.pg_class'::regclass AND d.objoid = %s
UNION ALL
SELECT 'RULE', r.rulename, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_rewrite r ON r.oid = d.objoid
WHERE d.classoid = 'pg_catalog.pg_rewrite'::regclass AND r.ev_class = %s
UNION ALL
SELECT 'TRIGGER', g.tgname, d.description FROM pg_catalog.pg_description d
JOIN pg_catalog.pg_trigger g ON g.oid = d.objoid
WHERE d.classoid = 'pg_catalog.pg_trigger'::regclass AND g.tgrelid = %s
"""
