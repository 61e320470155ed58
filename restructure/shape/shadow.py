"""The shadow table: made in one transaction, indexes set aside for after the copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restructure.model.relation import Relation
from restructure.shape.mapping import Mapping

Moment = Literal["key", "index", "swap"]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A statement taken off the empty shadow, to be run later.

    ``key``: the index that catch-up finds rows by, built first after the copy.
    ``index``: other indexes, unique and exclusion constraints, replica identity, cluster
    mark. ``swap``: only inside the swap (outbound foreign keys, identity ALWAYS).
    ``statement`` is complete SQL that names the shadow in its shadow schema, except for ``swap`` ones,
    which run after the shadow has moved and name it by its final place.
    """

    moment: Moment
    name: str
    statement: str
    lock: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the job remembers of the shadow. Stored in the catalog as JSON."""

    relation: Relation  # the OID stays the same through the swap
    leaves: tuple[Relation, ...]
    mapping: Mapping
    set_aside: tuple[SetAside, ...]
