"""What a revert could not bring back: better known before the job than after the cutover.

Needs the shadow, for the way back is derived with it: preflight asks it.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.errors import Finding
from restructure.postgres.connect import Connection
from restructure.shape.keys import takes_no_null
from restructure.shape.made import Shadow
from restructure.shape.mapping import Mapping
from restructure.shape.table import Column, Table

NAME = "way_back"


def find(connection: Connection, source: Table, shadow: Shadow) -> Iterator[Finding]:
    """Warn of a way back that will not exist, or that does not reach every old column."""
    back = shadow.back
    if back is None or back.mapping is None:
        yield Finding(
            NAME,
            f"there will be no way back after the cutover: {back.why if back else 'it is not known'}",
            "The old table is kept as it is at the swap, and what is written after it is only in the "
            "new one. Go on if that is enough; cutover.revert_window: 0 says so and ends this "
            "warning.",
            refuses=False,
        )
        return
    if back.lost:
        yield _lost(source, back.lost)
    empty = never_filled(connection, source, back.mapping)
    if empty:
        yield _refused(source, empty)


def _lost(source: Table, columns: tuple[str, ...]) -> Finding:
    return Finding(
        NAME,
        f"a revert would not bring back what is written after the cutover of {', '.join(columns)} of "
        f"{source.relation}: nothing says how to make that from a row of the new table",
        f"Say it under reverse, for example {columns[0]}: the expression over the new row that has "
        "its value. Without it a revert needs --accept-loss.",
        refuses=False,
    )


def _refused(source: Table, columns: list[str]) -> Finding:
    takes = "is NOT NULL and has" if len(columns) == 1 else "are NOT NULL and have"
    return Finding(
        NAME,
        f"rows inserted after the cutover could not go back to {source.relation}: {', '.join(columns)} "
        f"{takes} no default, and no column of the new table fills "
        f"{'it' if len(columns) == 1 else 'them'}",
        f"Give {columns[0]} a DEFAULT before the job begins, for such rows; or say under reverse how it "
        "is made of a row of the new table, which then goes for every row that is changed.",
        refuses=False,
    )


def never_filled(connection: Connection, source: Table, mapping: Mapping) -> list[str]:
    """The old columns without which a row cannot be, and that a row of the new table does not give."""
    filled = {column.name for column in mapping.filled}
    return [
        column.name
        for column in source.columns
        if column.name not in filled and _needs_value(connection, column)
    ]


def _needs_value(connection: Connection, column: Column) -> bool:
    fills_itself = column.generated or column.identity or column.default_sql
    takes_none = column.not_null or takes_no_null(connection, column.type_oid, column.not_null)
    return takes_none and not fills_itself
