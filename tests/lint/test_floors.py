"""The layout is a building: a module may import only from the floors below its own.

Same-floor imports stay within one package. Two more rules live here because they too are about
who may know what: psycopg's protocol level, and SQL text.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOORS: dict[str, int] = {
    "errors": 0,
    "model": 0,
    "plan": 1,
    "ports": 1,
    "postgres": 1,
    "catalog": 2,
    "shape": 2,
    "checks": 3,
    "demo": 3,
    "engine": 3,
    "phases": 4,
    "runner": 5,
    "daemon": 6,
    "runbook": 6,
    "web": 6,
    "cli": 7,
    "__main__": 8,
}

SIDEWAYS = {
    ("model", "errors"): "a word that cannot be says so itself",
    ("daemon", "runbook"): "the daemon drives jobs through their runbooks",
    ("daemon", "web"): "the daemon serves the endpoint and feeds its snapshot",
}
"""Imports between packages of one floor, and why."""

CONNECTORS_MAY_SEE = {"errors", "model", "ports", "postgres"}

SAYS_NOTHING = {"common", "helper", "helpers", "manager", "util", "utils"}

TAKES_SQL = {"SQL", "copy", "execute", "executemany", "stream"}


def complaints(module: str, source: str) -> list[str]:
    """Every rule that the module (its dotted name; packages end in .__init__) breaks."""
    tree = ast.parse(source)
    return [*_names(module), *_imports(module, tree), *_protocol(module, tree), *_sql(tree)]


def _names(module: str) -> Iterator[str]:
    for word in SAYS_NOTHING.intersection(module.split(".")):
        yield f"{module}: the name {word!r} says nothing"


def _imports(module: str, tree: ast.AST) -> Iterator[str]:
    top, package = _package(module)
    for line, target in _imported(module, tree):
        other_top, other = _package(target)
        where = f"{module}:{line}: imports {target}"
        if other_top not in ("restructure", "connectors"):
            continue
        if top == "connectors":
            if other_top == "restructure" and other not in CONNECTORS_MAY_SEE:
                yield f"{where}, but connectors see only {sorted(CONNECTORS_MAY_SEE)}"
        elif other_top == "connectors":
            yield f"{where}, but the core finds connectors by entry point"
        elif other in (package, "", "__version__"):
            continue
        elif package not in FLOORS or other not in FLOORS:
            yield f"{where}, but the table of floors does not know both"
        elif FLOORS[other] >= FLOORS[package] and (package, other) not in SIDEWAYS:
            yield f"{where}, from floor {FLOORS[package]} to floor {FLOORS[other]}"


def _protocol(module: str, tree: ast.AST) -> Iterator[str]:
    if _package(module) == ("restructure", "postgres"):
        return
    for line, target in _imported(module, tree):
        if target.startswith(("psycopg.pq", "psycopg.generators", "psycopg.replication")):
            yield f"{module}:{line}: {target} belongs to restructure.postgres alone"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (
            node.attr == "pgconn" or ast.unparse(node) == "psycopg.pq"
        ):
            yield f"{module}:{node.lineno}: {node.attr} belongs to restructure.postgres alone"


def _sql(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if name in TAKES_SQL and _is_formatted(node.args[0]):
            yield f"line {node.lineno}: SQL text built by formatting; compose it with psycopg.sql"


def _is_formatted(text: ast.expr) -> bool:
    """Whether text is put together at run time. A CONSTANT in an f-string is as fixed as text."""
    match text:
        case ast.JoinedStr():
            holes = [part.value for part in text.values if isinstance(part, ast.FormattedValue)]
            return not all(isinstance(hole, ast.Name) and hole.id.isupper() for hole in holes)
        case ast.BinOp(left=left, op=ast.Mod()):
            return _is_text(left)
        case ast.BinOp(left=left, right=right, op=ast.Add()):
            return (_is_text(left) or _is_text(right)) and not (_is_text(left) and _is_text(right))
        case ast.Call(func=ast.Attribute(value=value, attr="format" | "join" | "replace")):
            return _is_text(value)
    return False


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) and _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _package(module: str) -> tuple[str, str]:
    words = [word for word in module.split(".") if word != "__init__"]
    return words[0], words[1] if len(words) > 1 else ""


def _imported(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            for name in node.names:
                yield node.lineno, ".".join([*base, *filter(None, [node.module]), name.name])


def _modules() -> Iterator[tuple[str, Path]]:
    for top in ("restructure", "connectors"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(module, path, id=module) for module, path in _modules()]
)
def test_a_module_keeps_to_its_floor(module: str, path: Path) -> None:
    assert complaints(module, path.read_text()) == []


def test_no_module_of_the_tests_or_benchmarks_has_a_name_that_says_nothing() -> None:
    paths = [path for top in ("tests", "benchmarks") for path in (ROOT / top).rglob("*.py")]

    assert [path for path in paths if SAYS_NOTHING.intersection(path.with_suffix("").parts)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("restructure.postgres.slot", "from restructure.errors import NotNow"),
        ("restructure.shape.table", "from restructure.shape.mapping import Mapping"),
        ("restructure.cli.run", "from restructure import __version__, runner"),
        ("restructure.postgres.walsender", "from psycopg import pq\nconnection.pgconn.flush()"),
        ("connectors.pgoutput", "from restructure import ports\nfrom connectors.kafka import x"),
        ("restructure.model.key", "from . import lsn"),
        ("restructure.engine.copier", 'c.execute("SELECT %s", [1])\nc.execute(f"SELECT 1")'),
        ("restructure.engine.copier", 'c.execute(sql.SQL("SELECT {}").format(name))'),
        ("restructure.engine.copier", 'c.execute("SELECT 1" + " FROM t")'),
        ("restructure.catalog.job", 'c.execute(f"SELECT {_COLUMNS} FROM t")'),
        ("restructure.model.names", "from restructure.errors import UsageError"),
    ],
)
def test_what_is_allowed_passes(module: str, source: str) -> None:
    assert complaints(module, source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("restructure.postgres.slot", "from restructure.shape.table import Table"),
        ("restructure.postgres.slot", "def f():\n    import restructure.runner"),
        ("restructure.engine.copier", "from restructure.checks import registry"),
        ("restructure.demo.server", "from restructure import engine"),
        ("restructure.shape.table", "from ..catalog import job"),
        ("restructure.runner", "from connectors.pgoutput import open_stream"),
        ("restructure.attic.box", "from restructure import errors"),
        ("connectors.pgoutput", "from restructure.engine import crew"),
        ("connectors.pgoutput", "from psycopg import pq"),
        ("restructure.engine.copier", "connection.pgconn.put_copy_data(b'')"),
        ("restructure.engine.copier", "import psycopg\npsycopg.pq.version()"),
        ("restructure.engine.utils", ""),
        ("restructure.helpers.text", ""),
        ("restructure.engine.copier", 'c.execute(f"SELECT {x}")'),
        ("restructure.engine.copier", 'c.execute("SELECT %s" % x)'),
        ("restructure.engine.copier", 'c.execute("SELECT {}".format(x))'),
        ("restructure.engine.copier", 'c.execute("SELECT " + x)'),
        ("restructure.engine.copier", 'sql.SQL(f"SELECT {x}")'),
        ("restructure.engine.copier", 'c.execute(", ".join(names))'),
    ],
)
def test_what_is_forbidden_is_found(module: str, source: str) -> None:
    assert len(complaints(module, source)) == 1
