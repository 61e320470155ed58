"""All preflight checks, run in the order of their names, with every finding at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from restructure.checks import dependents
from restructure.checks.context import CheckContext
from restructure.checks.server import (
    activity,
    connections,
    database_create,
    event_triggers,
    free_senders,
    free_slots,
    idle_slots,
    old_transactions,
    pooler,
    prepared_transactions,
    replication,
    standby,
    subscriptions,
    synchronous_names,
    version,
    wal_kept,
    wal_level,
)
from restructure.checks.table import (
    access_method,
    extension,
    filtered_rows,
    held_by_prepared,
    inheritance,
    kind,
    names_taken,
    owner,
    replica_identity,
    space,
    subscribed,
    subscribed_publications,
    swap_names,
    wide_publications,
)
from restructure.errors import Finding

__all__ = ["SERVER_CHECKS", "TABLE_CHECKS", "CheckContext", "run_checks"]

Check = Callable[[CheckContext], Iterable[Finding]]

SERVER_CHECKS: dict[str, Check] = {
    module.NAME: module.find
    for module in (
        activity,
        connections,
        database_create,
        event_triggers,
        free_senders,
        free_slots,
        idle_slots,
        old_transactions,
        pooler,
        prepared_transactions,
        replication,
        standby,
        subscriptions,
        synchronous_names,
        version,
        wal_kept,
        wal_level,
    )
}

TABLE_CHECKS: dict[str, Check] = {
    module.NAME: module.find
    for module in (
        access_method,
        extension,
        filtered_rows,
        held_by_prepared,
        inheritance,
        kind,
        names_taken,
        owner,
        replica_identity,
        space,
        subscribed,
        subscribed_publications,
        swap_names,
        wide_publications,
    )
} | dict(dependents.checks())


def run_checks(context: CheckContext) -> list[Finding]:
    """Run every check that the context allows; refusals come before warnings.

    On a server that is too old nothing else is asked: the questions would not be understood.
    Nothing is prepared on the server meanwhile: behind a pooler it would fail before that is found.
    """
    usual = context.connection.prepare_threshold
    context.connection.prepare_threshold = None
    try:
        return _found(context)
    finally:
        context.connection.prepare_threshold = usual


def _found(context: CheckContext) -> list[Finding]:
    too_old = [finding for finding in version.find(context) if finding.refuses]
    if too_old:
        return too_old
    chosen = SERVER_CHECKS | (TABLE_CHECKS if context.source is not None else {})
    found = [finding for name in sorted(chosen) for finding in chosen[name](context)]
    return sorted(found, key=lambda finding: not finding.refuses)
