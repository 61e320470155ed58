"""Read a plan file. Every error names its file, line and column, and no value of the file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError

from restructure.errors import Place, PlanError, UsageError
from restructure.model.names import LONGEST_IDENTIFIER, Names
from restructure.plan.model import STREAM_TIMES, Plan
from restructure.plan.source import Path, Source, place_of
from restructure.plan.units import parse_duration

_NOT_YET = {
    "feed": "a table that lives in another database",
    "runbook": "runbooks",
}
_STREAMS = ("pgoutput",)
_TUNING = ("copy", "throttle", "verify", "cutover")


@dataclass(frozen=True, slots=True)
class LoadedPlan:
    """A plan and the text it was read from.

    ``digest`` is of the meaning: it changes with what the new table is, not with layout,
    comments or order of keys, nor with the stream's options, ``copy``, ``throttle``, ``verify`` and
    ``cutover``, which may be tuned while the job runs.
    """

    plan: Plan
    source: str
    digest: str
    file: str
    tree: Source

    def place(self, *path: str | int) -> Place:
        """Where a key or item stands, as in ``place("alter", 0)``; the nearest around it else."""
        return self.tree.place(*path)

    def inside(self, path: Path, offset: int) -> Place:
        """Where a character (from 0) of the text at ``path`` stands."""
        return self.tree.inside(path, offset)

    def about(self, column: str) -> Place:
        """Where the plan speaks of a column, found by its name: good enough to point at."""
        if column in self.plan.columns:
            return self.place("columns", column)
        for index, clause in enumerate(self.plan.alter):
            if column.lower() in clause.lower():
                return self.place("alter", index)
        if self.plan.create is not None:
            at = self.plan.create.lower().find(column.lower())
            return self.inside(("create",), max(at, 0))
        return self.place("alter")


def load_plan(path: str | FilePath) -> LoadedPlan:
    """Read and check the file. Raises PlanError, or UsageError where there is no such file."""
    file = str(path)
    try:
        raw = FilePath(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the plan {file}: {error.strerror or 'unreadable'}") from None
    except ValueError:
        raise UsageError("the plan's path holds a character that no path has") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise PlanError(
            "not UTF-8 text",
            place=place_of(before, len(before), file),
            hint="Save the plan as UTF-8.",
        ) from None
    return parse_plan(text, file)


def parse_plan(text: str, file: str = "plan") -> LoadedPlan:
    """As :func:`load_plan`, for a text that is already in memory."""
    tree = Source(text, file)
    _refuse_not_yet(tree)
    try:
        plan = Plan.model_validate_json(json.dumps(tree.values), strict=True)
    except ValidationError as error:
        raise _first_of(error, tree) from None
    _check(plan, tree)
    return LoadedPlan(plan, text, digest(plan), file, tree)


def digest(plan: Plan) -> str:
    """A fingerprint (SHA-256, hex) of what the new table is to be."""
    meaning = plan.model_dump(mode="json", by_alias=True, exclude=set(_TUNING) | {"copy_"})
    meaning["stream"] = {"kind": plan.stream["kind"]}
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _refuse_not_yet(tree: Source) -> None:
    for key, what in _NOT_YET.items():
        if key in tree.values:
            raise PlanError(
                f"{key}: this version does not have {what} yet",
                place=tree.place(key),
                hint=f"Leave out {key}.",
            )
    stream = tree.values.get("stream")
    if not isinstance(stream, dict):
        return
    kind = stream.get("kind")
    if kind not in _STREAMS:
        raise PlanError(
            "stream: this version has no stream of that kind yet"
            if "kind" in stream
            else "stream: kind is missing",
            place=tree.place("stream", "kind"),
            hint=f"Write kind: {_STREAMS[0]}, or leave out stream.",
        )
    for option, value in stream.items():
        place = tree.place("stream", option)
        if option not in ("kind", *STREAM_TIMES):
            known = ", ".join(STREAM_TIMES)
            raise PlanError(
                f"unknown key {option!r} in stream; known are kind, {known}", place=place
            )
        if option in STREAM_TIMES:
            try:
                seconds = parse_duration(str(value)).total_seconds()
            except ValueError as error:
                raise PlanError(f"stream.{option}: {error}", place=place) from None
            if seconds <= 0:
                raise PlanError(f"stream.{option}: must be longer than nothing", place=place)


def _first_of(error: ValidationError, tree: Source) -> PlanError:
    found: list[tuple[Place, str]] = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(detail["loc"])
        found.append((tree.place(*path), _explain(detail["type"], detail["msg"], path)))
    found.sort(key=lambda item: (item[0].line, item[0].column))
    place, message = found[0]
    others = [f"{other_place}: {other}" for other_place, other in found[1:]]
    return PlanError("\n".join([message, *others]), place=place)


def _explain(kind: str, message: str, path: Path) -> str:
    name = ".".join(str(step) for step in path)
    if kind == "extra_forbidden":
        known = _keys_around(path)
        near = get_close_matches(str(path[-1]).lower(), known, 1)
        suggestion = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"unknown key {path[-1]!r}; {suggestion}"
    if kind == "missing":
        return f"{name} is missing"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    message = message.replace("a valid array", "a list").replace("an object", "a mapping")
    return f"{name}: {message}"


def _keys_around(path: Path) -> list[str]:
    """The keys of the section that the last step of ``path`` stands in."""
    model: type[BaseModel] = Plan
    for step in path[:-1]:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        inner: Any = fields[str(step)].annotation
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _check(plan: Plan, tree: Source) -> None:
    """What pydantic cannot say, or cannot say at its place."""
    try:
        Names.of(plan.name)
    except UsageError as error:
        raise PlanError(error.message, place=tree.place("name"), hint=error.hint) from None
    given = [key for key in ("alter", "create") if tree.values.get(key) is not None]
    if len(given) != 1:
        raise PlanError(
            "alter and create exclude each other" if given else "one of alter and create is needed",
            place=tree.place(given[-1] if given else "table"),
            hint="alter: a list of ALTER TABLE clauses (it may be empty: []); create: whole DDL.",
        )
    for path, text in _texts(plan):
        if not text.strip():
            raise PlanError(f"{path[0]}: nothing is written here", place=tree.place(*path))
        if "\x00" in text:
            raise PlanError(
                f"{path[0]}: a NUL character, which no SQL has", place=tree.place(*path)
            )
    for path, name in _column_names(plan):
        if not 0 < len(name.encode()) <= LONGEST_IDENTIFIER or "\x00" in name:
            raise PlanError(
                f"{path[0]}: no column can have this name (1 to {LONGEST_IDENTIFIER} bytes)",
                place=tree.place(*path),
            )
    for index, name in enumerate(plan.drop):
        first = plan.drop.index(name)
        if first < index:
            raise PlanError(
                f"column {name!r} is named twice, first on line {tree.place('drop', first).line}",
                place=tree.place("drop", index),
            )
    if plan.throttle.query_limit is not None and plan.throttle.query is None:
        raise PlanError("query_limit without query", place=tree.place("throttle", "query_limit"))
    limit, slow = plan.throttle.wal_limit, plan.throttle.wal_retained
    if limit is not None and slow is not None and limit < slow:
        raise PlanError(
            "wal_limit is below wal_retained", place=tree.place("throttle", "wal_limit")
        )


def _column_names(plan: Plan) -> list[tuple[Path, str]]:
    names: list[tuple[Path, str]] = [(("columns", name), name) for name in plan.columns]
    names += [(("reverse", name), name) for name in plan.reverse]
    names += [(("drop", index), name) for index, name in enumerate(plan.drop)]
    return names


def _texts(plan: Plan) -> list[tuple[Path, str]]:
    texts: list[tuple[Path, str]] = [(("table",), plan.table)]
    texts += [(("alter", index), clause) for index, clause in enumerate(plan.alter)]
    texts += [(("columns", name), expression) for name, expression in plan.columns.items()]
    texts += [(("reverse", name), expression) for name, expression in plan.reverse.items()]
    if plan.create is not None:
        texts.append((("create",), plan.create))
    if plan.where is not None:
        texts.append((("where",), plan.where))
    if plan.throttle.query is not None:
        texts.append((("throttle", "query"), plan.throttle.query))
    return texts
