"""The plan's text as a tree whose every key and item knows its line and column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from restructure.errors import Place, PlanError
from restructure.plan.secrets import find_secret, secret_key

Path = tuple[str | int, ...]

LONGEST_PLAN = 1 << 20
"""Characters. A plan is written by people; a longer file is some other file."""

_TEXT_SECTIONS = ("name", "table", "alter", "create", "columns", "reverse", "drop", "where")
_CORE = "tag:yaml.org,2002:"
_KNOWN_TAGS = {f"{_CORE}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")}
_SECRET_HINT = (
    "Take it out, and change it if others have seen it. Connections come from --dsn, "
    "RESTRUCTURE_DSN, DATABASE_URL, or libpq's variables, service and password files."
)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a key (or item) stands, and the node of its value."""

    place: Place
    value: Node


class Source:
    """A parsed YAML document. Raises PlanError from :meth:`__init__` where it is not one."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._spots: dict[Path, _Spot] = {}
        self._seen: set[int] = set()
        self._refuse_early()
        root = self._compose()
        if not isinstance(root, MappingNode):
            raise PlanError("a plan is a mapping of keys to values", place=self._at(root))
        self._spots[()] = _Spot(self._at(root), root)
        self.values: dict[str, Any] = self._mapping(root, ())

    def place(self, *path: str | int) -> Place:
        """Where the key or item at ``path`` stands; else the nearest around it."""
        while path and path not in self._spots:
            path = path[:-1]
        return self._spots[path].place

    def inside(self, path: Path, offset: int) -> Place:
        """Where the character ``offset`` (from 0) of the text at ``path`` stands.

        Exact for literal blocks and for text that stands on one line as it is; else, for
        folded or escaped text, where it begins.
        """
        spot = self._spots.get(path)
        if spot is None or not isinstance(spot.value, ScalarNode):
            return self.place(*path)
        node, start = spot.value, spot.value.start_mark
        lines = self.text.split("\n")
        if node.style == "|":
            before = node.value[:offset]
            line = start.line + 1 + before.count("\n")
            column = offset - (before.rfind("\n") + 1)
            return Place(self.file, line + 1, _indent(lines[start.line + 1 :]) + column + 1)
        column = start.column + (1 if node.style in ("'", '"') else 0)
        if lines[start.line][column : column + len(node.value)] == node.value:
            return Place(self.file, start.line + 1, column + min(offset, len(node.value)) + 1)
        return self._at(node)

    def __contains__(self, path: Path) -> bool:
        return path in self._spots

    def _refuse_early(self) -> None:
        if len(self.text) > LONGEST_PLAN:
            raise PlanError("this file is too long to be a plan", place=Place(self.file, 1, 1))
        secret = find_secret(self.text)
        if secret is not None:
            raise PlanError(
                "a password in a connection string: a plan holds no secret in it",
                place=place_of(self.text, secret, self.file),
                hint=_SECRET_HINT,
            )
        if not self.text.strip():
            raise PlanError("the plan is empty", place=Place(self.file, 1, 1))

    def _compose(self) -> Node:
        root: Node | None
        try:
            root = YAML(typ="safe", pure=True).compose(self.text)
        except MarkedYAMLError as error:
            raise self._not_yaml(error) from None
        except ReaderError as error:
            raise PlanError(
                "a control character that YAML does not allow",
                place=place_of(self.text, error.position, self.file),
            ) from None
        except (YAMLError, RecursionError):
            raise PlanError("not readable as YAML", place=Place(self.file, 1, 1)) from None
        if root is None:
            raise PlanError("the plan is empty", place=Place(self.file, 1, 1))
        return root

    def _not_yaml(self, error: MarkedYAMLError) -> PlanError:
        mark = error.problem_mark or error.context_mark
        place = Place(self.file, mark.line + 1, mark.column + 1) if mark else Place(self.file, 1, 1)
        line = self.text.split("\n")[place.line - 1] if mark else ""
        if "\t" in line[: place.column]:
            return PlanError(
                "a tab, where YAML allows only spaces", place=place, hint="Indent with spaces."
            )
        return PlanError(f"not YAML: {error.problem or 'unreadable'}", place=place)

    def _value(self, node: Node, path: Path) -> Any:
        if id(node) in self._seen:
            raise PlanError(
                "an alias: a plan is read without anchors and aliases",
                place=self._spots[path].place,
            )
        self._seen.add(id(node))
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self._spots[(*path, index)] = _Spot(self._at(item), item)
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        raise PlanError("not a value", place=self._at(node))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self._at(key_node)
            if not isinstance(key_node, ScalarNode):
                raise PlanError("a key must be a word", place=place)
            key = str(key_node.value)
            if key_node.tag == f"{_CORE}merge":
                raise PlanError("a merge key (<<): a plan is read without them", place=place)
            if secret_key(path, key):
                raise PlanError(
                    f"key {key!r}: a plan holds no secret in it, nor a connection",
                    place=place,
                    hint=_SECRET_HINT,
                )
            if key in values:
                what = "column" if path and path[0] in ("columns", "reverse") else "key"
                first = self._spots[(*path, key)].place
                raise PlanError(
                    f"{what} {key!r} is named twice, first on line {first.line}", place=place
                )
            self._spots[(*path, key)] = _Spot(place, value_node)
            values[key] = self._value(value_node, (*path, key))
        return values

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if node.tag not in _KNOWN_TAGS:
            raise PlanError("a YAML tag (!…): a plan is read without them", place=self._at(node))
        text = str(node.value)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise PlanError("an escape that is no character", place=self._at(node))
        kind = node.tag.removeprefix(_CORE)
        if node.style is not None or kind in ("str", "timestamp"):
            return text
        if path[0] in _TEXT_SECTIONS or path == ("throttle", "query"):
            return text if text not in ("", "~") else None  # SQL: NULL, 1 and true are text too
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            return text

    def _at(self, node: Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)


def place_of(text: str, offset: int, file: str) -> Place:
    """The line and column of a character of ``text``."""
    before = text[:offset]
    return Place(file, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


def _indent(lines: list[str]) -> int:
    for line in lines:
        if line.strip():
            return len(line) - len(line.lstrip(" "))
    return 0
