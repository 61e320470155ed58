"""What a job remembers of its shadow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from restructure.model.relation import Relation
from restructure.shape.mapping import FilledColumn, KeyPair, Mapping, WayBack

Moment = Literal["key", "index", "swap", "after"]


@dataclass(frozen=True, slots=True)
class SetAside:
    """A statement taken off the empty shadow, to be run later, in the order of the list.

    ``key``: the index that catch-up finds rows by, built first after the copy.
    ``index``: other indexes, unique and exclusion constraints, replica identity, cluster
    mark. ``swap``: only inside the swap (outbound foreign keys, constraints NOT VALID,
    identity ALWAYS). ``after``: once the swap is committed, each in a transaction of its own
    (VALIDATE).
    ``statement`` is complete SQL that names the shadow in its shadow schema, except for ``swap``
    and ``after``, which run after the shadow has moved and name it by its final place. A percent
    sign in it stands for itself.
    """

    moment: Moment
    name: str
    statement: str
    lock: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """What the job remembers of the shadow. Stored in the catalog as JSON.

    ``branches`` are partitions that are partitioned themselves, parents first.
    """

    relation: Relation  # the OID stays the same through the swap
    leaves: tuple[Relation, ...]
    mapping: Mapping
    set_aside: tuple[SetAside, ...]
    branches: tuple[Relation, ...] = ()
    back: WayBack | None = None

    def to_json(self) -> dict[str, Any]:
        """For the catalog."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Shadow:
        """Read back what :meth:`to_json` made."""
        back = stored["back"]
        return cls(
            relation=Relation(**stored["relation"]),
            leaves=tuple(Relation(**leaf) for leaf in stored["leaves"]),
            mapping=_mapping(stored["mapping"]),
            set_aside=tuple(SetAside(**aside) for aside in stored["set_aside"]),
            branches=tuple(Relation(**branch) for branch in stored["branches"]),
            back=None
            if back is None
            else WayBack(
                back["mapping"] and _mapping(back["mapping"]), back["why"], tuple(back["lost"])
            ),
        )


def _mapping(stored: dict[str, Any]) -> Mapping:
    return Mapping(
        filled=tuple(
            FilledColumn(**{**column, "reads": tuple(column["reads"])})
            for column in stored["filled"]
        ),
        key=tuple(KeyPair(**pair) for pair in stored["key"]),
        where=stored["where"],
        ours=stored["ours"],
    )
