"""Foreign keys of the table that point to itself.

The shadow of ``alter`` gets them as it gets any foreign key (shape/aside.py): it was cloned with
them, and they come back in the swap, where their name for the table means the new one. Under
``create`` the plan's own DDL says which there are.
"""

from __future__ import annotations

from collections.abc import Iterator

from restructure.postgres.connect import Connection
from restructure.shape.carry.dependents import Dependent, dependents
from restructure.shape.carry.inbound_keys import switched_off
from restructure.shape.carry.kind import NOTHING, Carrying, Kind, Part
from restructure.shape.foreign import LateConstraint, read_late_constraints
from restructure.shape.table import Table


def find(connection: Connection, table: Table) -> list[Dependent]:
    """Name them."""
    return dependents(connection, table, "self-reference")


def self_references(connection: Connection, table: Table) -> list[LateConstraint]:
    """Read them; each of a partitioned table once."""
    ours = {member.oid for member in table.tree}
    late = read_late_constraints(connection, table.tree)
    return [key for key in late if key.target in ours and not key.inherited]


def part(carrying: Carrying) -> Part:
    """The new table's own constraints come back in any case, see the module's docstring."""
    return NOTHING


def rehearse(carrying: Carrying) -> Iterator[str]:
    """The shadow was built with them: only what its keys do not show can be wrong."""
    for key in self_references(carrying.connection, carrying.source):
        reason = switched_off(carrying.connection, [key.oid])
        if reason is not None:
            yield f"foreign key {key.name}: {reason}"


KIND = Kind(
    "self-reference",
    find,
    how="part of the new table; added NOT VALID in the swap, validated after it",
    hint="Enable the triggers, or drop the key and add it again afterwards.",
    part=part,
    rehearse=rehearse,
)
