"""What a run found, as tables for people and as JSON. Pure.

Figures of several rounds are shown as the median with the least and the most; two figures are
compared round by round, since what slows the machine down slows both sides of a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from dify_kb.bench.metrics import Spread

WIDTH = 27


@frozen(kw_only=True)
class BenchmarkFigure:
    """What one way came to, round by round. `server` is the part of the wall time for which the
    server was busy; `problem` tells why there are no values.
    """

    way: str
    values: Sequence[float] = ()
    server: float | None = None
    problem: str | None = None

    def ratio(self, to: BenchmarkFigure) -> Spread | None:
        """Compare with another figure of the same rounds."""
        if not self.values or not to.values:
            return None
        pairs = zip(self.values, to.values, strict=True)
        return Spread.from_values([mine / theirs if theirs else 0.0 for mine, theirs in pairs])


@frozen(kw_only=True)
class ComparisonTable:
    """Figures that are compared with each other; `floors` are the ways that all are held against,
    the lowest first.
    """

    name: str
    title: str
    unit: str
    floors: Sequence[str]
    figures: Sequence[BenchmarkFigure]

    def __getitem__(self, way: str) -> BenchmarkFigure:
        """Give the figure of a way."""
        return {figure.way: figure for figure in self.figures}[way]

    def ratio(self, way: str, to: str) -> float | None:
        """Give the median ratio of two ways; None where one has no figure."""
        ratio = self[way].ratio(self[to])
        return None if ratio is None else ratio.median

    def text(self) -> str:
        """Write the table for people."""
        heads = "".join(f"{'x ' + floor:>{len(floor) + 4}}" for floor in self.floors)
        busy = any(figure.server is not None for figure in self.figures)
        head = f"{self.unit:{WIDTH}}{'median':>10}{'least':>10}{'most':>10}{heads}"
        rows = [self._row(figure) for figure in self.figures]
        return "\n".join([self.title, head + ("  server" if busy else ""), *rows])

    def _row(self, figure: BenchmarkFigure) -> str:
        if not figure.values:
            return f"{figure.way:{WIDTH}}  {figure.problem}"
        spread = Spread.from_values(figure.values)
        cells = "".join(
            f"{format_value(each):>10}" for each in (spread.median, spread.low, spread.high)
        )
        for floor in self.floors:
            ratio = figure.ratio(self[floor])
            cells += f"{f'{ratio.median:.2f}' if ratio else '-':>{len(floor) + 4}}"
        busy = "" if figure.server is None else f"{figure.server:>8.0%}"
        return f"{figure.way:{WIDTH}}{cells}{busy}"

    def json(self) -> dict[str, Any]:
        """Write the table for machines."""
        return {
            "title": self.title,
            "unit": self.unit,
            "floors": list(self.floors),
            "figures": {figure.way: self._json(figure) for figure in self.figures},
        }

    def _json(self, figure: BenchmarkFigure) -> dict[str, Any]:
        if not figure.values:
            return {"problem": figure.problem}
        ratios = {floor: figure.ratio(self[floor]) for floor in self.floors}
        return {
            **_digits(Spread.from_values(figure.values)),
            "ratios": {floor: _digits(ratio) for floor, ratio in ratios.items() if ratio},
            **({} if figure.server is None else {"server": round_to_four_digits(figure.server)}),
        }


@frozen(kw_only=True)
class Bound:
    """What must hold: `found` may be `limit` at most, or must be it at least."""

    description: str
    limit: float
    measured: float | None
    is_minimum: bool = False
    is_aim: bool = False
    """Whether a miss is told, but fails nothing."""

    @property
    def is_held(self) -> bool:
        """Whether it was measured and holds."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.is_minimum else self.measured <= self.limit

    def text(self) -> str:
        """Write it in a line."""
        found = "not measured" if self.measured is None else format_value(self.measured)
        word = "at least" if self.is_minimum else "at most"
        end = "held" if self.is_held else "aim missed" if self.is_aim else "MISSED"
        return f"{self.description}: {found} ({word} {format_value(self.limit)}) {end}"

    def json(self) -> dict[str, Any]:
        """Write it for machines."""
        return {
            "what": self.description,
            "least" if self.is_minimum else "most": self.limit,
            "found": None if self.measured is None else round_to_four_digits(self.measured),
            "held": self.is_held,
            "aim": self.is_aim,
        }


def run_to_json(tables: Mapping[str, ComparisonTable], bounds: Sequence[Bound]) -> dict[str, Any]:
    """Put a run together, without its circumstances."""
    return {
        "bounds": [bound.json() for bound in bounds],
        "tables": {name: table.json() for name, table in tables.items()},
    }


def round_to_four_digits(value: float) -> float:
    """Keep four digits."""
    return float(f"{value:.4g}")


def format_value(value: float) -> str:
    """Write three digits at least, and no more decimals than they need."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _digits(spread: Spread) -> dict[str, float]:
    """Write it with four digits."""
    return {
        **{name: round_to_four_digits(value) for name, value in asdict(spread).items()},
        "count": spread.count,
    }
