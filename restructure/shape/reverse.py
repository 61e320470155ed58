"""The plan's ``reverse``: what fills the old columns from the new row, should one go back."""

from __future__ import annotations

from restructure.errors import PlanError
from restructure.plan.load import LoadedPlan
from restructure.postgres.connect import Connection
from restructure.shape.expressions import ExpressionReader, Target
from restructure.shape.table import Table


def check_reverse(connection: Connection, source: Table, shadow: Table, loaded: LoadedPlan) -> None:
    """Read each expression over the shadow's row. Raises PlanError at the first that will not do.

    Checked before anything is copied: a plan that cannot be reverted should say so first.
    """
    reader = ExpressionReader(
        connection, loaded, shadow.relation, source.relation.name, shadow.relation.schema
    )
    for name, text in loaded.plan.reverse.items():
        old = source.column(name)
        assert old is not None, "the mapping has looked for unknown names"
        if old.generated:
            raise PlanError(
                f"reverse: {name!r} is a generated column, which PostgreSQL fills itself",
                place=loaded.place("reverse", name),
            )
        target = Target(source.relation, name, old.type_oid, like=True)
        reader.fill(("reverse", name), text, target)
