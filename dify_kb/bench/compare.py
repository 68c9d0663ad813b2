"""Two reports beside each other: before and after a change of settings. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from .quality.report import QualityReport
from .tables import bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .numbers import Latency, Spread
    from .report import InstanceReport, Searches, Uploads

Verdict = Literal["better", "worse", "same"]

LEAST = 0.1
"""A difference below this part is none."""

TRUST = 0.1
"""The part of a number by which it is doubted at least, however alike its repetitions were."""

FEW, ROUGH = 3, 0.25
"""Below so many repetitions a spread tells little, and so much is doubted. It is also what the
median and what the 95th percentile (of 100 requests, the sixth largest) are doubted by, since they
are told of all rounds together."""


@frozen(kw_only=True)
class Figure:
    """A number of a report, within its spread, and which way is better."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    more_is_better: bool


@frozen(kw_only=True)
class Difference:
    """A number of two reports. `ratio` is after by before; None where before was zero."""

    name: str
    unit: str
    before: float
    after: float
    ratio: float | None
    verdict: Verdict
    """`same` where they differ by less than a tenth, or their spreads overlap."""


def compare(
    before: InstanceReport | QualityReport, after: InstanceReport | QualityReport
) -> Sequence[Difference]:
    """Tell what changed, of the numbers that both reports have."""
    new = {figure.name: figure for figure in figures(after)}
    return [
        _difference(figure, new[figure.name]) for figure in figures(before) if figure.name in new
    ]


def figures(report: InstanceReport | QualityReport) -> Sequence[Figure]:
    """Give the numbers of a report that can be compared."""
    if isinstance(report, QualityReport):
        return _quality(report)
    found: list[Figure] = []
    for uploads in report.uploads:
        found += _sweep(f"upload {bytes_of(uploads.size)}", "files/s", uploads)
    if report.indexed:
        known = report.indexed
        found.append(_near("indexing", "documents/s", known.rate, more_is_better=True))
        for name, spread in (
            ("available after", known.available),
            ("waiting for the worker", known.queued),
            ("work", known.worked),
        ):
            found += _spread(f"indexing, {name}", "s", spread, more_is_better=False)
    for searches in report.searches:
        found += _sweep(f"{searches.method}, top {searches.top_k}", "queries/s", searches)
    for row in report.listed:
        found += _spread(
            f"page in {row.documents:,} documents", "s", row.first, more_is_better=False
        )
    return found


def _quality(report: QualityReport) -> Sequence[Figure]:
    return [
        Figure(
            name=f"{row.base}, {row.method}: {name}",
            unit="",
            value=mean.value,
            low=mean.value - mean.error,
            high=mean.value + mean.error,
            more_is_better=True,
        )
        for row in report.rows
        for name, mean in (
            *((f"recall@{k}", row.recall[str(k)]) for k in report.ks),
            ("MRR", row.mrr),
            (f"nDCG@{max(report.ks)}", row.ndcg),
        )
    ]


def _sweep(name: str, unit: str, found: Uploads | Searches) -> Sequence[Figure]:
    listed: list[Figure] = []
    for level in found.levels:
        at = f"{name}, {level.at_once} at once"
        listed += _spread(at, unit, level.rate, more_is_better=True)
        listed += _times(at, level.latency)
    if found.knee and found.knee.reached:
        listed.append(_near(f"{name}, when full", unit, found.knee.most, more_is_better=True))
    return listed


def _times(name: str, latency: Latency | None) -> Sequence[Figure]:
    if latency is None:
        return []
    return [
        _near(f"{name}, p50", "s", latency.p50, more_is_better=False),
        _near(f"{name}, p95", "s", latency.p95, more_is_better=False),
    ]


def _spread(
    name: str, unit: str, spread: Spread | None, *, more_is_better: bool
) -> Sequence[Figure]:
    if spread is None:
        return []
    doubt = spread.median * (TRUST if spread.count >= FEW else ROUGH)
    return [
        Figure(
            name=name,
            unit=unit,
            value=spread.median,
            low=min(spread.low, spread.median - doubt),
            high=max(spread.high, spread.median + doubt),
            more_is_better=more_is_better,
        )
    ]


def _near(name: str, unit: str, value: float, *, more_is_better: bool) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        value=value,
        low=value * (1 - ROUGH),
        high=value * (1 + ROUGH),
        more_is_better=more_is_better,
    )


def _difference(before: Figure, after: Figure) -> Difference:
    ratio = after.value / before.value if before.value else None
    return Difference(
        name=before.name,
        unit=before.unit,
        before=before.value,
        after=after.value,
        ratio=ratio,
        verdict=_verdict(before, after),
    )


def _verdict(before: Figure, after: Figure) -> Verdict:
    overlap = before.low <= after.high and after.low <= before.high
    if overlap or abs(after.value - before.value) < LEAST * before.value:
        return "same"
    return "better" if (after.value > before.value) == before.more_is_better else "worse"
