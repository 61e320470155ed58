"""For a while the table is there twice, and its indexes are built anew."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.errors import Finding

NAME = "space"

_SIZES = """
SELECT sum(pg_catalog.pg_total_relation_size(oid))::int8,
       pg_catalog.pg_size_pretty(sum(pg_catalog.pg_total_relation_size(oid))),
       pg_catalog.pg_size_pretty(sum(pg_catalog.pg_total_relation_size(oid)) * 3 / 2)
FROM unnest(%(oids)s::oid[]) AS oid
"""
WORTH_SAYING = 1 << 30
"""Bytes."""


def find(context: CheckContext) -> Iterator[Finding]:
    total, pretty, wal = context.row(_SIZES, oids=context.oids)
    if total is not None and total >= WORTH_SAYING:
        yield Finding(
            NAME,
            f"the shadow table will take about {pretty}, and its copy writes about {wal} of WAL",
            "SQL cannot see how much is free: look at the data directory's disk, and at the "
            "standbys' and the WAL archive's.",
            refuses=False,
        )
