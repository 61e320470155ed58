"""Cutting the key out of a row as pgoutput sends it, in the form that COPY BINARY takes."""

from __future__ import annotations

from struct import Struct
from typing import Final

from restructure.errors import OperatorNeeded

Keys = list[bytes]
"""What a row message gives: no key (unwatched), one, or the old and the new one."""

ADVICE = "Nothing after it was confirmed. Check that this release knows the server's version."

_DELETE: Final = ord("D")
_NEW: Final = ord("N")
_OLD: Final = frozenset(b"KO")
_BINARY, _TEXT, _NULL, _UNCHANGED = b"btnu"
_SHORT = Struct(">H").unpack_from
_INT = Struct(">I").unpack_from


class KeyCut:
    """Where the key lies in one relation's rows.

    ``places``: which of the ``columns`` published columns each key column is.
    """

    def __init__(
        self, relation: str, names: tuple[str, ...], places: tuple[int, ...], columns: int
    ) -> None:
        self._relation = relation
        self._names = names
        self._places = places
        self._lone = columns == 1

    def keys(self, message: bytes, at: int) -> Keys:
        """The keys in a row message whose first tuple begins at ``at``.

        Raises OperatorNeeded for what cannot be read; IndexError or struct.error where the
        message is too short.
        """
        part = message[at]
        if self._lone and message[at + 3] == _BINARY and (part == _NEW or message[0] == _DELETE):
            # The hot path: one published column, so the rest of the message is the key.
            return [message[at + 4 :]]
        old: list[bytes | int] | None = None
        if part in _OLD:
            old, at = self._fields(message, at + 1)
            if message[0] == _DELETE:
                return [self._key(old, None)]
            part = message[at] if at < len(message) else 0
        if part != _NEW or message[0] == _DELETE:
            raise OperatorNeeded(
                f"a row of {self._relation} has an unknown part: {chr(part)!r}", hint=ADVICE
            )
        new, _ = self._fields(message, at + 1)
        key = self._key(new, old)
        if old is None:
            return [key]
        before = self._key(old, None)
        return [key] if before == key else [before, key]

    def _fields(self, message: bytes, at: int) -> tuple[list[bytes | int], int]:
        """The columns of one tuple, each as COPY BINARY bytes or else as its kind."""
        (count,) = _SHORT(message, at)
        at += 2
        fields: list[bytes | int] = []
        for _ in range(count):
            kind = message[at]
            if kind in (_BINARY, _TEXT):
                end = at + 5 + _INT(message, at + 1)[0]
                fields.append(message[at + 1 : end] if kind == _BINARY else kind)
                at = end
            elif kind in (_NULL, _UNCHANGED):
                fields.append(kind)
                at += 1
            else:
                raise OperatorNeeded(
                    f"a row of {self._relation} has an unknown kind of column: {chr(kind)!r}",
                    hint=ADVICE,
                )
        if at > len(message):
            raise IndexError(at)
        return fields, at

    def _key(self, fields: list[bytes | int], old: list[bytes | int] | None) -> bytes:
        parts = []
        for name, place in zip(self._names, self._places, strict=True):
            field = fields[place]
            if field == _UNCHANGED and old is not None:
                # Stored out of line and not changed: the server sends it in the old part only.
                field = old[place]
            if not isinstance(field, bytes):
                raise OperatorNeeded(
                    f"key column {name} of {self._relation} arrived {_MANNER[field]}",
                    hint="Its replica identity must be the key, of types with a binary form.",
                )
            parts.append(field)
        return b"".join(parts)


_MANNER = {_TEXT: "as text", _NULL: "as null", _UNCHANGED: "without its value"}
