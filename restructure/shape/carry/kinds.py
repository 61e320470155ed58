"""Every kind of dependent, in the order in which the swap makes them again.

They are taken away in the reverse order.
"""

from __future__ import annotations

from restructure.shape.carry import (
    defaults,
    functions,
    inbound_keys,
    labels,
    materialized_views,
    membership,
    others,
    policies,
    publications,
    row_security,
    row_types,
    rules,
    self_references,
    statistics,
    triggers,
    views,
)
from restructure.shape.carry.kind import Kind

KINDS: tuple[Kind, ...] = (
    membership.KIND,
    membership.KEYS_ABOVE,
    statistics.KIND,
    row_types.KIND,
    views.KIND,
    materialized_views.KIND,
    functions.KIND,
    defaults.KIND,
    self_references.KIND,
    inbound_keys.KIND,
    row_security.KIND,
    policies.KIND,
    rules.KIND,
    triggers.KIND,
    labels.KIND,
    publications.KIND,
    others.KIND,
)
"""What only reads the table comes first, what acts on its rows after that, what sends them on
at the end."""

CARRIED: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.carried)
REFUSED: tuple[Kind, ...] = tuple(kind for kind in KINDS if not kind.carried)
