"""Compare two reports, before and after a change of settings. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from .render_instance_report import format_size
from .results import QualityReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import Latency, Spread
    from .results import InstanceReport, SearchResult, UploadResult

ChangeVerdict = Literal["better", "worse", "same"]

MIN_DIFFERENCE = 0.1
"""Smaller relative differences count as equal."""

MIN_DOUBT = 0.1
"""Minimum relative uncertainty of a value, however small the spread of its repetitions."""

FEW_REPETITIONS, ROUGH_DOUBT = 3, 0.25
"""Values with fewer than 3 repetitions have this relative uncertainty, since their spread says
little. So do the percentiles of latencies, which are computed over all rounds."""


@frozen(kw_only=True)
class ComparableValue:
    """A value of a report, with its spread and whether more is better."""

    name: str
    unit: str
    value: float
    low: float
    high: float
    more_is_better: bool


@frozen(kw_only=True)
class Difference:
    """A value in both reports. `ratio` is after / before, or None if before is zero."""

    name: str
    unit: str
    before: float
    after: float
    ratio: float | None
    verdict: ChangeVerdict
    """`same` if the values differ by less than a tenth, or their spreads overlap."""

    def is_worse_by(self, share: float) -> bool:
        """Return whether the value is worse by more than `share` of the value before."""
        change = abs(self.after - self.before)
        return self.verdict == "worse" and change > share * abs(self.before)


def compare_reports(
    before: InstanceReport | QualityReport, after: InstanceReport | QualityReport
) -> Sequence[Difference]:
    """Compare the values that both reports have."""
    new = {figure.name: figure for figure in comparable_values(after)}
    return [
        _compare_values(figure, new[figure.name])
        for figure in comparable_values(before)
        if figure.name in new
    ]


def comparable_values(report: InstanceReport | QualityReport) -> Sequence[ComparableValue]:
    """Return the values of a report that can be compared."""
    if isinstance(report, QualityReport):
        return _quality_values(report)
    result: list[ComparableValue] = []
    for uploads in report.uploads:
        result += _sweep_values(f"upload {format_size(uploads.size)}", "files/s", uploads)
    if report.indexed:
        known = report.indexed
        result.append(
            _approximate_value("indexing", "documents/s", known.rate, more_is_better=True)
        )
        failed = float(known.failed + known.unfinished)
        result.append(
            ComparableValue(
                name="indexing, not indexed",
                unit="documents",
                value=failed,
                low=failed,
                high=failed,
                more_is_better=False,
            )
        )
        for name, spread in (
            ("time to available", known.available),
            ("queue time", known.queued),
            ("work time", known.worked),
        ):
            result += _spread_values(f"indexing, {name}", "s", spread, more_is_better=False)
    for searches in report.searches:
        result += _sweep_values(f"{searches.method}, top {searches.top_k}", "queries/s", searches)
    for row in report.listed:
        result += _spread_values(
            f"list page, {row.documents:,} documents", "s", row.first, more_is_better=False
        )
    return result


def _quality_values(report: QualityReport) -> Sequence[ComparableValue]:
    return [
        ComparableValue(
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


def _sweep_values(
    name: str, unit: str, result: UploadResult | SearchResult
) -> Sequence[ComparableValue]:
    listed: list[ComparableValue] = []
    for level in result.levels:
        at = f"{name}, concurrency {level.at_once}"
        listed += _spread_values(at, unit, level.rate, more_is_better=True)
        listed += _latency_values(at, level.latency)
    if result.knee and result.knee.reached:
        listed.append(
            _approximate_value(f"{name}, saturated", unit, result.knee.most, more_is_better=True)
        )
    return listed


def _latency_values(name: str, latency: Latency | None) -> Sequence[ComparableValue]:
    if latency is None:
        return []
    return [
        _approximate_value(f"{name}, p50", "s", latency.p50, more_is_better=False),
        _approximate_value(f"{name}, p95", "s", latency.p95, more_is_better=False),
    ]


def _spread_values(
    name: str, unit: str, spread: Spread | None, *, more_is_better: bool
) -> Sequence[ComparableValue]:
    if spread is None:
        return []
    doubt = spread.median * (MIN_DOUBT if spread.count >= FEW_REPETITIONS else ROUGH_DOUBT)
    return [
        ComparableValue(
            name=name,
            unit=unit,
            value=spread.median,
            low=min(spread.low, spread.median - doubt),
            high=max(spread.high, spread.median + doubt),
            more_is_better=more_is_better,
        )
    ]


def _approximate_value(
    name: str, unit: str, value: float, *, more_is_better: bool
) -> ComparableValue:
    return ComparableValue(
        name=name,
        unit=unit,
        value=value,
        low=value * (1 - ROUGH_DOUBT),
        high=value * (1 + ROUGH_DOUBT),
        more_is_better=more_is_better,
    )


def _compare_values(before: ComparableValue, after: ComparableValue) -> Difference:
    ratio = after.value / before.value if before.value else None
    return Difference(
        name=before.name,
        unit=before.unit,
        before=before.value,
        after=after.value,
        ratio=ratio,
        verdict=_decide_verdict(before, after),
    )


def _decide_verdict(before: ComparableValue, after: ComparableValue) -> ChangeVerdict:
    overlap = before.low <= after.high and after.low <= before.high
    if overlap or abs(after.value - before.value) < MIN_DIFFERENCE * before.value:
        return "same"
    return "better" if (after.value > before.value) == before.more_is_better else "worse"
