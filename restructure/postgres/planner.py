"""What a session of ours tells the planner."""

from __future__ import annotations

from restructure.postgres.connect import Connection


def force_index_lookups(session: Connection) -> None:
    """Keep the planner from reading whole tables for a batch of keys.

    It cannot know how many keys a batch has, and its guess at 100,000 is a sequential scan of both tables.
    """
    session.execute(
        "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off"
    )


def read_by_index(session: Connection, *, in_order: bool) -> None:
    """Make the planner read ranges of keys by indexes, whose bounds it does not know when it plans.

    ``in_order``: both tables side by side, merged without a sort; else one, with a lookup in the
    other for each row.
    """
    # one process per worker: their number is the plan's to say
    session.execute(
        "SET enable_hashjoin = off; SET enable_seqscan = off; SET enable_bitmapscan = off;"
        " SET max_parallel_workers_per_gather = 0"
    )
    session.execute("SET enable_sort = off" if in_order else "SET enable_mergejoin = off")
