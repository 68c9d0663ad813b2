"""Compare two reports, before and after a change of settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from dify_kb.errors import ConfigError

from .metrics import Ranks, ndcg, recall, reciprocal_rank
from .render_instance_report import format_size
from .results import InstanceReport, QualityReport
from .significance import find_changes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import Latency, Spread
    from .results import QualityRow, Report, SearchResult, UploadResult

ChangeVerdict = Literal["better", "worse", "same"]

MIN_DIFFERENCE = 0.1
"""Smaller relative differences count as equal."""

MIN_DOUBT = 0.1
"""Minimum relative uncertainty of a value, however small the spread of its repetitions."""

FEW_FAILURES = 0.5
"""Percent of failed requests by which a share is uncertain: single failures do not count."""

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


def compare_reports(before: Report, after: Report) -> Sequence[Difference]:
    """Compare the values that both reports have.

    Raises:
        ConfigError: one is a report of `bench`, the other of `eval`.
    """
    match before, after:
        case QualityReport(), QualityReport():
            return compare_quality(before, after)
        case InstanceReport(), InstanceReport():
            return _compare_instances(before, after)
        case _:
            raise ConfigError(
                f"Reports of different commands: `{before.type}` and `{after.type}`.",
                hint="Compare two reports of `bench`, or two of `eval`.",
            )


def _compare_instances(before: InstanceReport, after: InstanceReport) -> Sequence[Difference]:
    new = {figure.name: figure for figure in comparable_values(after)}
    return [
        _compare_values(figure, new[figure.name])
        for figure in comparable_values(before)
        if figure.name in new
    ]


def list_missing_parts(before: Report, after: Report) -> Sequence[str]:
    """Return what was measured before and not after: a failure that no value shows."""
    match before, after:
        case QualityReport(), QualityReport():
            old, new = map(list, _quality_rows(before, after))
        case InstanceReport(), InstanceReport():
            old, new = map(_instance_parts, (before, after))
        case _:
            return []
    return [part for part in old if part not in new]


def compare_quality(before: QualityReport, after: QualityReport) -> Sequence[Difference]:
    """Compare evaluations by the queries that they have in common.

    A metric changed if its values for the same queries differ by more than chance; with fewer than
    10 common queries, none does.
    """
    old, new = _quality_rows(before, after)
    names = [name for name in old if name in new]
    places = [_query_places(report) for report in (before, after)]
    common = [text for text in places[0] if text in places[1]]
    if not names or not common:
        return []
    old_ranks, new_ranks = (
        [[row[name].ranks[place[text]] for text in common] for name in names]
        for row, place in zip((old, new), places, strict=True)
    )
    metrics = _quality_metrics(before, after)
    changes = iter(
        find_changes(*(_score(ranks, metrics.values()) for ranks in (old_ranks, new_ranks)))
    )
    found: list[Difference] = []
    for name, was, now in zip(names, old_ranks, new_ranks, strict=True):
        for label, metric in metrics.items():
            value, later = (fmean(map(metric, ranks)) for ranks in (was, now))
            found.append(
                Difference(
                    name=f"{name}: {label}",
                    unit="",
                    before=value,
                    after=later,
                    ratio=later / value if value else None,
                    verdict=_QUALITY_VERDICTS[next(changes)],
                )
            )
    return found


Metric = Callable[[Ranks], float]

_QUALITY_VERDICTS: Mapping[int, ChangeVerdict] = {-1: "worse", 0: "same", 1: "better"}


def _score(
    ranks: Sequence[Sequence[Ranks]], metrics: Iterable[Metric]
) -> Sequence[Sequence[float]]:
    """Return the scores of each row by each metric, by query."""
    listed = list(metrics)
    return [[metric(of_query) for of_query in row] for row in ranks for metric in listed]


def _quality_metrics(before: QualityReport, after: QualityReport) -> Mapping[str, Metric]:
    ks = [k for k in before.ks if k in after.ks]
    max_k = min(max(before.ks), max(after.ks))
    return {
        **{f"recall@{k}": partial(recall, k=k) for k in ks},
        "MRR": partial(reciprocal_rank, k=max_k),
        f"nDCG@{max_k}": partial(ndcg, k=max_k),
    }


def _quality_rows(*reports: QualityReport) -> Sequence[Mapping[str, QualityRow]]:
    """Return the rows of each report by base and method; by method if each has only one base."""
    bases = [{row.base for row in report.rows} for report in reports]
    named = any(len(names) > 1 for names in bases)
    return [
        {f"{row.base}, {row.method}" if named else row.method: row for row in report.rows}
        for report in reports
    ]


def _query_places(report: QualityReport) -> Mapping[str, int]:
    return {text: place for place, text in enumerate(report.asked)}


def _instance_parts(report: InstanceReport) -> list[str]:
    return [
        *(
            f"upload {format_size(row.size)}"
            for row in report.uploads
            if any(level.latency for level in row.levels)
        ),
        *(["indexing"] if report.indexed and report.indexed.completed else []),
        *(
            f"{row.method}, top {row.top_k}"
            for row in report.searches
            if any(level.latency for level in row.levels)
        ),
        *(["list pages"] if report.listed else []),
    ]


def comparable_values(report: InstanceReport) -> Sequence[ComparableValue]:
    """Return the values of a report that can be compared."""
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
    failed = sum(level.errors for level in result.levels)
    requests = failed + sum(level.latency.count for level in result.levels if level.latency)
    share = 100 * failed / max(1, requests)
    listed.append(
        ComparableValue(
            name=f"{name}, failed requests",
            unit="%",
            value=share,
            low=share - FEW_FAILURES,
            high=share + FEW_FAILURES,
            more_is_better=False,
        )
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
