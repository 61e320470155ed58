"""Judge an expression by PostgreSQL's own parse of it, as a view stores it in pg_rewrite.ev_action.

The text form escapes every space, brace and bracket inside names (outToken in PostgreSQL's
outfuncs.c) and prints constants as numbers, so a node's tag or a field cannot be imitated by
what a name or a literal holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from restructure.postgres.connect import Connection

_TARGETS = re.compile(r":targetList \((.*?)\) :override ", re.DOTALL)
_FIELD = re.compile(r":(\w+) (\d+|true|false)\b")
_VAR = re.compile(r"\{VAR :varno \d+ :varattno (-?\d+) ")
_SQL_VALUE = re.compile(r"\{SQLVALUEFUNCTION :op (\d+) ")
_OPERATORS = re.compile(r":opnos \(o ([\d ]+)\)")
_FIRST_NODE = re.compile(r"\(?\{TARGETENTRY :expr \{(\w+)")

_SQL_VALUES = (  # SQLValueFunctionOp in PostgreSQL's primnodes.h
    *("current_date", "current_time", "current_time", "current_timestamp", "current_timestamp"),
    *("localtime", "localtime", "localtimestamp", "localtimestamp", "current_role"),
    *("current_user", "user", "session_user", "current_catalog", "current_schema"),
)

_PARTS = {
    "hasSubLinks": "a subquery",
    "hasAggs": "an aggregate",
    "hasWindowFuncs": "a window function",
    "hasTargetSRFs": "a function that returns a set",
}

_MOMENTARY = (
    r"^(now|transaction_timestamp|statement_timestamp|current_setting|current_schemas?"
    r"|current_user|session_user|(txid|pg)_current_(xact_id|snapshot)(_if_assigned)?"
    r"|txid_current(_if_assigned)?|pg_backend_pid|pg_my_temp_schema|pg_postmaster_start_time"
    r"|pg_conf_load_time|inet_(client|server)_(addr|port)|(obj|col|shobj)_description"
    r"|(table|schema|database)_to_xml.*|has_.*_privilege|pg_has_role|row_security_active"
    r"|pg_get_.*|pg_.*_is_visible|to_reg.*|getpgusername)$"
)
"""Functions of PostgreSQL's own that are STABLE, so the same within one statement, and still give
another result at another time or to another session."""

_FUNCTIONS = """
SELECT p.proname,
       CASE WHEN p.provolatile = 'v' THEN 'volatile'
            WHEN p.provolatile = 's' AND n.nspname = 'pg_catalog'
                 AND (p.proname ~ %(momentary)s OR p.proname = 'age' AND p.pronargs = 1)
                 THEN 'momentary'
            WHEN p.provolatile = 's' AND n.nspname <> 'pg_catalog'
                 AND l.lanname NOT IN ('internal', 'c') THEN 'stable'
       END AS fault
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid = ANY(%(functions)s::oid[])
   OR p.oid IN (SELECT o.oprcode FROM pg_catalog.pg_operator o
                WHERE o.oid = ANY(%(operators)s::oid[]))
ORDER BY 2, 1
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an expression does. ``fault`` is None, or why it cannot be used, in words.

    ``culprit`` is the word of the expression that is at fault, where there is one. ``reads`` are
    attribute numbers; 0 stands for the whole row. ``holds`` is the one attribute that the
    expression passes on, at most through one cast.
    """

    fault: str | None
    culprit: str
    hint: str
    reads: frozenset[int]
    holds: int | None


def judge(connection: Connection, tree: str) -> Judgement:
    """Judge a query tree (text of pg_rewrite.ev_action) with one target."""
    found = _TARGETS.search(tree)
    targets = found[1] if found else tree
    reads = [int(number) for number in _VAR.findall(targets)]
    fault, culprit, hint = _fault(connection, tree, targets, reads)
    return Judgement(fault, culprit, hint, frozenset(reads), _held(targets, reads))


def _fault(
    connection: Connection, tree: str, targets: str, reads: list[int]
) -> tuple[str | None, str, str]:
    flags = dict(_FIELD.findall(tree[: tree.find(":rtable")]))
    for flag, part in _PARTS.items():
        if flags.get(flag) == "true":
            return (
                f"{part} looks beyond its own row",
                "",
                "When another row changes, nothing would tell us that this one has to follow.",
            )
    if any(number < 0 for number in reads):
        return "a system column says where a row lies, not what it holds", "", "Leave it out."
    momentary = [_SQL_VALUES[int(number)] for number in _SQL_VALUE.findall(targets)]
    if momentary:
        return _another_time(momentary[0])
    fields = _FIELD.findall(targets)
    functions = [int(value) for name, value in fields if name in ("funcid", "opfuncid")]
    operators = [int(value) for name, value in fields if name == "opno"]
    for several in _OPERATORS.findall(targets):
        operators += [int(number) for number in several.split()]
    rows = connection.execute(
        _FUNCTIONS, {"functions": functions, "operators": operators, "momentary": _MOMENTARY}
    ).fetchall()
    faulty = [(name, fault) for name, fault in rows if fault is not None]
    return _of_function(*faulty[0]) if faulty else (None, "", "")


def _of_function(name: str, fault: str) -> tuple[str, str, str]:
    if fault == "momentary":
        return _another_time(name)
    if fault == "volatile":
        return (
            f"function {name}() is volatile",
            name,
            "A row is read again whenever it changes, and must give the same result. If the "
            "function depends on its arguments only, declare it IMMUTABLE.",
        )
    return (
        f"function {name}() is only STABLE, so it may read other tables",
        name,
        "If it depends on its arguments only, declare it IMMUTABLE.",
    )


def _another_time(name: str) -> tuple[str, str, str]:
    return (
        f"{name} gives another result at another time or in another session",
        name,
        "A row is read again whenever it changes. Use a constant, or a column default.",
    )


def _held(targets: str, reads: list[int]) -> int | None:
    """The column that the whole expression is, or is one cast of."""
    first = _FIRST_NODE.match(targets)
    if first is None or len(reads) != 1 or reads[0] <= 0:
        return None
    if first[1] == "VAR":
        return reads[0]
    nodes = re.findall(r"\{([A-Z]+)", targets)[1:]
    cast = first[1] in ("RELABELTYPE", "COERCEVIAIO") or (
        first[1] == "FUNCEXPR" and re.search(r":funcformat [12] ", targets) is not None
    )
    return reads[0] if cast and nodes[1:] == ["VAR"] else None
