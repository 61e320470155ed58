"""Our role must be allowed to stream, and the way to the server must let it."""

from __future__ import annotations

from collections.abc import Iterator

from restructure.checks.context import CheckContext
from restructure.checks.server import free_senders
from restructure.errors import Finding, Retryable
from restructure.postgres.connect import connect_replication
from restructure.postgres.server import may_replicate, provider

NAME = "replication"


def find(context: CheckContext) -> Iterator[Finding]:
    role, allowed = may_replicate(context.connection)
    who = provider(context.connection)
    if not allowed:
        yield Finding(
            NAME,
            f"role {role} may not use replication slots",
            who.replication.format(role=role),
        )
    elif not any(free_senders.find(context)):
        yield from _try_it(context, who.name)


def _try_it(context: CheckContext, server: str) -> Iterator[Finding]:
    job = context.names.job if context.names else "-"
    try:
        with connect_replication(context.dsn, job=job, role="check") as session:
            session.execute("IDENTIFY_SYSTEM")
    except Retryable as error:
        yield Finding(
            NAME,
            f"{error.message}",
            f"Connect to {server} itself and not to a pooler or a load balancer, and let "
            "pg_hba.conf accept this role and database.",
        )
