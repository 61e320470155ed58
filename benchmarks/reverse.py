"""After the swap: what clients pay for the way back, beside what native logical replication costs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.backlog import subscribed
from benchmarks.clients import Clients, work_for
from benchmarks.place import Place
from benchmarks.results import Line, Outcome, side_by_side
from benchmarks.sizes import Sizes
from benchmarks.tool import Tool

RATE = 1500
"""Transactions per second of all clients together."""

_WARM_UP = 3.0
_STRETCH = 10.0


@dataclass(slots=True)
class Stretch:
    """Median waits in milliseconds: of clients alone, and while their writes are followed."""

    alone: float
    followed: float
    samples: dict[str, Any]


def run(place: Place, sizes: Sizes) -> Outcome:
    """Both in each round, in turn first."""
    ours: list[Stretch] = []
    native: list[Stretch] = []
    for number in range(sizes.rounds or 3):
        for side in (_ours, _native) if number % 2 == 0 else (_native, _ours):
            (ours if side is _ours else native).append(side(place))
    return Outcome(
        "reverse",
        place.version,
        [
            side_by_side(
                "after the swap: median client wait / with native replication",
                "ms",
                [(o.followed, n.followed) for o, n in zip(ours, native, strict=True)],
            ),
            _over("after the swap: median client wait / before the job", ours),
            _over("native replication: median client wait / without", native),
        ],
        {
            "ours": [stretch.samples for stretch in ours],
            "native": [stretch.samples for stretch in native],
            "rate_per_s": RATE,
        },
    )


def _over(name: str, found: list[Stretch]) -> Line:
    return side_by_side(name, "ms", [(stretch.followed, stretch.alone) for stretch in found])


def _ours(place: Place) -> Stretch:
    """The retired table is kept in step by a process that stays."""
    with place.copy("reverse_ours") as dsn, Clients(place, dsn, rate=RATE) as clients:
        work_for(clients, _WARM_UP)
        place.checkpoint()
        alone = work_for(clients, _STRETCH)
        with (
            psycopg.connect(dsn, autocommit=True) as look,
            Tool(dsn, "--cutover", "--then", "stay") as tool,
        ):
            tool.until(lambda: _is_kept_in_step(look))
            followed = work_for(clients, _STRETCH)
        clients.stop()
    return _stretch(clients, alone, followed)


def _native(place: Place) -> Stretch:
    """The same changes applied by a subscription, in another database of the same server."""
    with (
        place.copy("reverse_source") as source,
        place.copy("reverse_target") as target,
        psycopg.connect(source, autocommit=True) as session,
        Clients(place, source, rate=RATE) as clients,
    ):
        work_for(clients, _WARM_UP)
        place.checkpoint()
        alone = work_for(clients, _STRETCH)
        with subscribed(session, source, target):
            with psycopg.connect(target, autocommit=True) as there:
                there.execute("ALTER SUBSCRIPTION bench ENABLE")
            followed = work_for(clients, _STRETCH)
            clients.stop()
    return _stretch(clients, alone, followed)


def _is_kept_in_step(session: psycopg.Connection) -> bool:
    row = session.execute("SELECT to_regclass('restructure.journal') IS NOT NULL").fetchone()
    if row != (True,):
        return False
    told = "SELECT EXISTS (SELECT FROM restructure.journal WHERE event = 'keeping in step')"
    return session.execute(told).fetchone() == (True,)


def _stretch(
    clients: Clients, alone: tuple[float, float], followed: tuple[float, float]
) -> Stretch:
    return Stretch(
        clients.typical(*alone),
        clients.typical(*followed),
        {"alone": clients.summary(*alone), "followed": clients.summary(*followed)},
    )
