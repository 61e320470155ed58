"""What a check is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

from restructure.model.names import Names
from restructure.model.relation import Relation, Watched
from restructure.plan.model import Plan
from restructure.postgres.connect import Connection
from restructure.shape.carry.family import family
from restructure.shape.table import Table


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What checks may look at. ``connection`` is in autocommit; checks change nothing.

    Without ``source`` (as in ``doctor``) only the checks of the server run; with it, names,
    plan and watched must be there too.
    """

    connection: Connection
    dsn: str
    source: Table | None = None
    names: Names | None = None
    plan: Plan | None = None
    watched: Watched | None = None

    def rows(self, query: LiteralString, **parameters: Any) -> list[Any]:
        return self.connection.execute(query, parameters or None).fetchall()

    def row(self, query: LiteralString, **parameters: Any) -> Any:
        """The first row, as a tuple."""
        return self.rows(query, **parameters)[0]

    @property
    def way_back_wanted(self) -> bool:
        """Whether the retired table is to be kept in step; plans have it so by default."""
        return self.plan is None or bool(self.plan.cutover.revert_window)

    @property
    def table(self) -> Table:
        if self.source is None:
            raise TypeError("a check of a table was run without one")
        return self.source

    @property
    def job(self) -> Names:
        if self.names is None:
            raise TypeError("a check of a job was run without its names")
        return self.names

    @property
    def tree(self) -> list[Relation]:
        """The table and all its partitions."""
        return [member.relation for member in family(self.connection, self.table.relation)]

    @property
    def oids(self) -> list[int]:
        return [relation.oid for relation in self.tree]
