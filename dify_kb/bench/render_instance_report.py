"""Render an instance report as tables and as an HTML page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .benchmark_plan import KIB, MIB
from .html_report import PageSection, ReportTable, render_page
from .results import has_stub_models
from .svg_charts import Chart, ChartSeries, format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .metrics import Latency, Spread
    from .results import (
        ConcurrencyLevel,
        ErrorSummary,
        IndexingResult,
        InstanceReport,
        ListPageLatency,
        SearchResult,
        UploadResult,
    )
    from .saturation_point import SaturationPoint


def render_instance_page(report: InstanceReport) -> str:
    """Render a report as an HTML page with charts."""
    sections = [
        *(_upload_section(result) for result in report.uploads),
        *([_indexing_section(report.indexed)] if report.indexed else []),
        *([_search_section(report.searches)] if report.searches else []),
        *([_list_latency_section(report.listed)] if report.listed else []),
        _error_section(report),
    ]
    return render_page(
        "Dify server benchmark",
        instance_facts(report),
        sections,
        verdict=instance_verdict(report),
        warnings=instance_warnings(report),
    )


MANY_FILES = 10_000
"""The number of files in the sentences about the time that a load takes."""


def instance_verdict(report: InstanceReport) -> str:
    """Return the result in a few sentences: uploads, indexing, searches."""
    known = [(row.size, row.knee) for row in report.uploads if row.knee is not None]
    parts = [_judge_uploads(*known[0])] if known else ["Uploads could not be measured."]
    if report.indexed is not None:
        parts.append(_judge_indexing(report.indexed))
    if times := [row.levels[0] for row in report.searches if row.levels and row.levels[0].latency]:
        slowest = max(level.latency.p95 for level in times if level.latency)
        parts.append(f"A single search takes up to {format_duration(slowest)} (95th percentile).")
    return " ".join(parts)


def _judge_uploads(size: int, knee: SaturationPoint) -> str:
    rate = f"{format_number(knee.most)} files/s"
    takes = f"{MANY_FILES:,} files of {format_size(size)} take"
    duration = format_duration(MANY_FILES / knee.most)
    if not knee.reached:
        return (
            f"More than {knee.at_once} uploads at once may be useful: the server accepted {rate}"
            f" and was not saturated; {takes} at most {duration} to upload."
        )
    noun = "upload at once is" if knee.at_once == 1 else "uploads at once are"
    return f"{knee.at_once} {noun} enough: {rate}; {takes} {duration} to upload."


def _judge_indexing(result: IndexingResult) -> str:
    failures = ""
    if result.failed:
        reason = next(iter(result.reasons), "")
        failures = (
            f" {result.failed} of {result.documents} documents failed"
            f"{f' ({reason})' if reason else ''}."
        )
    if result.unfinished:
        failures += f" {result.unfinished} were not indexed in time."
    if not result.rate:
        return f"No document was indexed.{failures}"
    return (
        f"Indexing adds {format_number(result.rate)} documents/s, {MANY_FILES:,} in"
        f" {format_duration(MANY_FILES / result.rate)}.{failures}"
    )


STUB_WARNING = (
    "Measured with the stub models of the embedded server, which answer at once: indexing and"
    " searches with real models are slower."
)


def instance_warnings(report: InstanceReport) -> Sequence[str]:
    """Return what one has to know to judge the result."""
    if not has_stub_models(report.models):
        return []
    return [STUB_WARNING]


def format_duration(seconds: float) -> str:
    """Return a duration in one unit with two digits: `45 ms`, `6.5 minutes`, `2.3 hours`."""
    if seconds < 1:
        return f"{1000 * seconds:.2g} ms"
    for unit, length, most in (("second", 1, 90), ("minute", 60, 5400), ("hour", 3600, 172_800)):
        if seconds < most:
            return _format_unit(seconds / length, unit)
    return _format_unit(seconds / 86_400, "day")


def _format_unit(value: float, unit: str) -> str:
    text = f"{value:.2g}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 -- two digits
    return f"{text} {unit}{'' if text == '1' else 's'}"


def _upload_section(result: UploadResult) -> PageSection:
    name = format_size(result.size)
    knee = result.knee
    marks = {float(knee.at_once): "saturation point"} if knee and knee.reached else {}
    rate = Chart(
        title=f"Upload rate, files of {name}",
        x="concurrent uploads",
        y="files/s",
        scale="doubling",
        marks=marks,
        series=[
            ChartSeries(
                name="files/s",
                points=[(level.at_once, level.rate.median) for level in result.levels],
                spreads=[(level.rate.low, level.rate.high) for level in result.levels],
            )
        ],
    )
    known = [(level.at_once, level.latency) for level in result.levels if level.latency]
    latency = Chart(
        title=f"Upload time, files of {name}",
        x="concurrent uploads",
        y="ms",
        scale="doubling",
        marks=marks,
        series=[
            ChartSeries(name="median", points=[(at, 1000 * times.p50) for at, times in known]),
            ChartSeries(
                name="95th percentile", points=[(at, 1000 * times.p95) for at, times in known]
            ),
        ],
    )
    return PageSection(
        heading=f"Uploads of {name}",
        text=f"{describe_saturation(result)} {SATURATION_EXPLANATION} Bars show the minimum and"
        " maximum of the rounds.",
        charts=(rate, latency),
        table=upload_table(result),
    )


SATURATION_EXPLANATION = (
    "The saturation point is the lowest number of concurrent requests that reaches 95 % of the"
    " highest rate: with more of them, each only waits longer."
)


def _indexing_section(result: IndexingResult) -> PageSection:
    chart = Chart(
        title="Documents available",
        x="seconds since the first upload",
        y="documents",
        series=[ChartSeries(name="documents", points=[(0.0, 0.0), *result.course])],
    )
    return PageSection(
        heading="Indexing",
        text="Of the documents that were indexed; failed ones are not counted as available. Queue"
        " time and work time are by the server's timestamps, in whole seconds.",
        charts=(chart,),
        table=indexing_table(result),
    )


def _search_section(result: Sequence[SearchResult]) -> PageSection:
    charts: list[Chart] = []
    for top_k in sorted({row.top_k for row in result}):
        rows = [row for row in result if row.top_k == top_k]
        charts += [
            Chart(
                title=f"Query rate, top {top_k}",
                x="concurrent queries",
                y="queries/s",
                scale="doubling",
                series=[
                    ChartSeries(
                        name=row.method,
                        points=[(level.at_once, level.rate.median) for level in row.levels],
                    )
                    for row in rows
                ],
            ),
            Chart(
                title=f"Query time, 95th percentile, top {top_k}",
                x="concurrent queries",
                y="ms",
                scale="doubling",
                series=[
                    ChartSeries(
                        name=row.method,
                        points=[
                            (level.at_once, 1000 * level.latency.p95)
                            for level in row.levels
                            if level.latency
                        ],
                    )
                    for row in rows
                ],
            ),
        ]
    return PageSection(
        heading="Retrieval",
        text="Top k is the number of passages per search; higher concurrency than at the highest"
        " rate only adds waiting time.",
        charts=charts,
        table=search_table(result),
    )


def _list_latency_section(result: Sequence[ListPageLatency]) -> PageSection:
    chart = Chart(
        title="Response time of a list page of 100 documents",
        x="documents in the dataset",
        y="ms",
        series=[
            ChartSeries(
                name="first page",
                points=[(row.documents, 1000 * row.first.median) for row in result],
            ),
            ChartSeries(
                name="last page", points=[(row.documents, 1000 * row.last.median) for row in result]
            ),
        ],
    )
    return PageSection(heading="List requests", charts=(chart,), table=list_latency_table(result))


def _error_section(report: InstanceReport) -> PageSection:
    text = " ".join(report.notes) or "The plan was completed."
    table: ReportTable | None = error_table(report.troubles) if report.troubles else None
    no_errors = "" if report.troubles else " No request failed."
    return PageSection(heading="Errors", text=f"{text}{no_errors}", table=table)


LATENCY = ("p50 ms", "p95 ms", "p99 ms")


def format_size(size: float) -> str:
    """Return a size in bytes, KiB or MiB."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{format_number(size / unit)} {name}"
    return f"{size:.0f} bytes"


def upload_table(result: UploadResult) -> ReportTable:
    """Return a table of the uploads of one size, with the saturation point highlighted."""
    rows = [
        [
            str(level.at_once),
            *_rate_cells(level.rate),
            format_number(level.rate.median * result.size / MIB),
            *_latency_cells(level.latency),
            str(level.errors),
        ]
        for level in result.levels
    ]
    knee = result.knee.at_once if result.knee and result.knee.reached else 0
    return ReportTable(
        columns=("concurrency", "files/s", "spread", "MiB/s", *LATENCY, "errors"),
        rows=rows,
        highlighted=_saturation_row(result.levels, knee),
    )


def describe_saturation(result: UploadResult | SearchResult) -> str:
    """Return a sentence about the saturation point."""
    knee = result.knee
    if knee is None:
        return "Too few responses to find the saturation point."
    if not knee.reached:
        return f"Not saturated at concurrency {knee.at_once}, the highest measured."
    most = format_number(knee.most)
    measured = any(level.at_once == knee.at_once for level in result.levels)
    return (
        f"Saturation point: concurrency {knee.at_once}{'' if measured else ' (interpolated)'}; from"
        f" there on, {most} responses per second on average."
    )


def search_table(result: Sequence[SearchResult]) -> ReportTable:
    """Return a table of the searches by method and concurrency."""
    rows = [
        [
            row.method,
            str(row.top_k),
            str(level.at_once),
            *_rate_cells(level.rate),
            *_latency_cells(level.latency),
            str(level.errors),
        ]
        for row in result
        for level in row.levels
    ]
    return ReportTable(
        columns=("method", "top k", "concurrency", "queries/s", "spread", *LATENCY, "errors"),
        rows=rows,
    )


def indexing_table(result: IndexingResult) -> ReportTable:
    """Return a table of the indexing results."""
    times = (
        ("time to available, s", result.available),
        ("queue time, s", result.queued),
        ("work time, s", result.worked),
    )
    rows = [
        ["documents", str(result.documents), ""],
        ["  completed", str(result.completed), ""],
        ["  failed", str(result.failed), ""],
        *(["    " + reason, str(count), ""] for reason, count in result.reasons.items()),
        ["  unfinished", str(result.unfinished), ""],
        ["size", format_size(result.bytes), ""],
        ["chunks", str(result.chunks), ""],
        ["documents/s", format_number(result.rate), ""],
        *([name, *_spread_cells(spread)] for name, spread in times),
    ]
    return ReportTable(columns=("", result.technique, "spread"), rows=rows, sortable=False)


def list_latency_table(result: Sequence[ListPageLatency]) -> ReportTable:
    """Return a table of list latencies by size of the dataset."""
    rows = [[f"{row.documents:,}", *_ms_cells(row.first), *_ms_cells(row.last)] for row in result]
    return ReportTable(
        columns=("documents", "first page ms", "spread", "last page ms", "spread"), rows=rows
    )


def error_table(result: Sequence[ErrorSummary]) -> ReportTable:
    """Return a table of errors by endpoint and kind."""
    rows = [[row.endpoint, row.kind, str(row.count), row.example] for row in result]
    return ReportTable(columns=("request", "error", "count", "example"), rows=rows)


def instance_facts(report: InstanceReport) -> Sequence[tuple[str, str]]:
    """Return the environment and the cost of the run, as names and values."""
    where = report.where
    ping = f"{format_number(1000 * where.ping.p50)} ms" if where.ping else "-"
    return [
        ("server", where.server),
        ("version", where.server_version or "unknown"),
        ("measured", f"{where.when}, plan {report.plan}, {report.seconds:.0f} s"),
        ("machine", f"{where.machine}, {where.processors} processors, Python {where.python}"),
        ("client", f"dify-kb {where.client}"),
        ("latency of a small read", ping),
        ("models", ", ".join(report.models) or "none (economy)"),
        ("cost", f"{report.requests:,} requests, {report.documents:,} documents"),
    ]


def _rate_cells(spread: Spread) -> tuple[str, str]:
    return format_number(spread.median), f"{format_number(spread.low)}-{format_number(spread.high)}"


def _ms_cells(spread: Spread) -> tuple[str, str]:
    return format_number(
        1000 * spread.median
    ), f"{format_number(1000 * spread.low)}-{format_number(1000 * spread.high)}"


def _spread_cells(spread: Spread | None) -> tuple[str, str]:
    return ("-", "") if spread is None else _rate_cells(spread)


def _latency_cells(latency: Latency | None) -> Sequence[str]:
    if latency is None:
        return ["-"] * 3
    return [format_number(1000 * value) for value in (latency.p50, latency.p95, latency.p99)]


def _saturation_row(levels: Sequence[ConcurrencyLevel], knee: int) -> Sequence[int]:
    """Return the row of the saturation point: the first level not below it."""
    saturated_rows = [index for index, level in enumerate(levels) if level.at_once >= knee > 0]
    return saturated_rows[:1]
