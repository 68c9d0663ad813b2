"""Render the results of a comparison as text tables and as JSON. Pure.

Figures are the median, minimum and maximum of several rounds. Ratios are computed by round, since
a slow machine slows both sides of a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from dify_kb.bench.metrics import Spread

WIDTH = 27


@frozen(kw_only=True)
class BenchmarkFigure:
    """The values of one method, by round.

    `server` is the part of the wall time for which the server was busy; `problem` is the reason if
    there are no values.
    """

    method: str
    values: Sequence[float] = ()
    server: float | None = None
    problem: str | None = None

    def ratio(self, to: BenchmarkFigure) -> Spread | None:
        """Return the ratio to another figure of the same rounds."""
        if not self.values or not to.values:
            return None
        pairs = zip(self.values, to.values, strict=True)
        return Spread.from_values([mine / theirs if theirs else 0.0 for mine, theirs in pairs])


@frozen(kw_only=True)
class ComparisonTable:
    """A table of figures. `floors` are the methods to which ratios are computed, lowest first."""

    name: str
    title: str
    unit: str
    floors: Sequence[str]
    figures: Sequence[BenchmarkFigure]

    def __getitem__(self, method: str) -> BenchmarkFigure:
        """Return the figure of a method."""
        return {figure.method: figure for figure in self.figures}[method]

    def ratio(self, method: str, to: str) -> float | None:
        """Return the median ratio of two methods; None if one has no values."""
        ratio = self[method].ratio(self[to])
        return None if ratio is None else ratio.median

    def text(self) -> str:
        """Return the table as text."""
        heads = "".join(f"{'x ' + floor:>{len(floor) + 4}}" for floor in self.floors)
        busy = any(figure.server is not None for figure in self.figures)
        head = f"{self.unit:{WIDTH}}{'median':>10}{'min':>10}{'max':>10}{heads}"
        rows = [self._row(figure) for figure in self.figures]
        return "\n".join([self.title, head + ("  server" if busy else ""), *rows])

    def _row(self, figure: BenchmarkFigure) -> str:
        if not figure.values:
            return f"{figure.method:{WIDTH}}  {figure.problem}"
        spread = Spread.from_values(figure.values)
        cells = "".join(
            f"{format_value(each):>10}" for each in (spread.median, spread.low, spread.high)
        )
        for floor in self.floors:
            ratio = figure.ratio(self[floor])
            cells += f"{f'{ratio.median:.2f}' if ratio else '-':>{len(floor) + 4}}"
        busy = "" if figure.server is None else f"{figure.server:>8.0%}"
        return f"{figure.method:{WIDTH}}{cells}{busy}"

    def json(self) -> dict[str, Any]:
        """Return the table as JSON."""
        return {
            "title": self.title,
            "unit": self.unit,
            "floors": list(self.floors),
            "figures": {figure.method: self._json(figure) for figure in self.figures},
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
    """A bound: `measured` must not exceed `limit`, or with `is_minimum`, not be below it."""

    description: str
    limit: float
    measured: float | None
    is_minimum: bool = False
    is_aim: bool = False
    """Whether a miss is reported without a failure of the run."""

    @property
    def is_held(self) -> bool:
        """Whether the value was measured and is within the bound."""
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.is_minimum else self.measured <= self.limit

    def text(self) -> str:
        """Return the bound as a line of text."""
        found = "not measured" if self.measured is None else format_value(self.measured)
        word = "at least" if self.is_minimum else "at most"
        end = "held" if self.is_held else "aim missed" if self.is_aim else "MISSED"
        return f"{self.description}: {found} ({word} {format_value(self.limit)}) {end}"

    def json(self) -> dict[str, Any]:
        """Return the bound as JSON."""
        return {
            "what": self.description,
            "least" if self.is_minimum else "most": self.limit,
            "found": None if self.measured is None else round_to_four_digits(self.measured),
            "held": self.is_held,
            "aim": self.is_aim,
        }


def run_to_json(tables: Mapping[str, ComparisonTable], bounds: Sequence[Bound]) -> dict[str, Any]:
    """Return the tables and bounds of a run as JSON."""
    return {
        "bounds": [bound.json() for bound in bounds],
        "tables": {name: table.json() for name, table in tables.items()},
    }


def round_to_four_digits(value: float) -> float:
    """Return a value rounded to four significant digits."""
    return float(f"{value:.4g}")


def format_value(value: float) -> str:
    """Return a value with three significant digits, or as an integer from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _digits(spread: Spread) -> dict[str, float]:
    """Return a spread as JSON, with four significant digits."""
    return {
        **{name: round_to_four_digits(value) for name, value in asdict(spread).items()},
        "count": spread.count,
    }
