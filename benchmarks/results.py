"""What a benchmark found: lines with a goal, and the raw samples behind them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

MEMORY_LIMIT = 200.0
"""MB that our process may ever have resident, whatever the table or the backlog."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``ratio`` (or ``ours`` itself, where there is nothing to compare with) against a limit."""

    sense: Literal["at most", "at least"]
    limit: float

    def met_by(self, figure: float) -> bool:
        return figure <= self.limit if self.sense == "at most" else figure >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.sense == 'at most' else '≥'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table. ``other`` is None where only our own figure counts."""

    name: str
    unit: str
    ours: float
    other: float | None = None
    ratio: float | None = None
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        """None where no goal was set."""
        if self.goal is None:
            return None
        return self.goal.met_by(self.ours if self.ratio is None else self.ratio)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass(slots=True)
class Outcome:
    """One benchmark on one version of PostgreSQL.

    ``skipped`` says why it did not run, ``failed`` which error ended it.
    """

    benchmark: str
    version: int
    lines: list[Line] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None
    failed: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "postgresql": self.version,
            "lines": [line.as_json() for line in self.lines],
            "samples": self.samples,
            "skipped": self.skipped,
            "failed": self.failed,
        }


def side_by_side(
    name: str, unit: str, pairs: list[tuple[float, float]], goal: Goal | None = None
) -> Line:
    """Medians of both sides, and the median of the ratios within each round.

    A machine's noise drifts between rounds, so the ratio of the medians would flatter or accuse.
    """
    return Line(
        name,
        unit,
        ours=median(ours for ours, _ in pairs),
        other=median(other for _, other in pairs),
        ratio=median(ours / other for ours, other in pairs),
        goal=goal,
    )


def memory_line(name: str, megabytes: list[float]) -> Line:
    """The largest resident set of any run."""
    return Line(
        f"{name}: resident memory", "MB", max(megabytes), goal=Goal("at most", MEMORY_LIMIT)
    )


def print_outcomes(outcomes: list[Outcome], console: Console) -> None:
    """One table of everything."""
    table = Table("PG", "what", "ours", "other", "ratio", "limit", "met?", box=None)
    for column in table.columns[2:5]:
        column.justify = "right"
    for outcome in outcomes:
        if outcome.skipped is not None:
            table.add_row(str(outcome.version), f"{outcome.benchmark}: skipped, {outcome.skipped}")
        if outcome.failed is not None:
            words = f"{outcome.benchmark}: FAILED, {outcome.failed}"
            table.add_row(str(outcome.version), words, "", "", "", "", "NO")
        for line in outcome.lines:
            table.add_row(
                str(outcome.version),
                line.name,
                _figure(line.ours, line.unit),
                _figure(line.other, line.unit),
                "" if line.ratio is None else f"{line.ratio:.2f}",
                "" if line.goal is None else str(line.goal),
                {None: "", True: "yes", False: "NO"}[line.met],
            )
    console.print(table)


def _figure(figure: float | None, unit: str) -> str:
    if figure is None:
        return ""
    return f"{figure:,.0f} {unit}" if abs(figure) >= 100 else f"{figure:.3g} {unit}"
