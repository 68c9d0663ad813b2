"""Render the report of a load or sync as an HTML page. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb import ItemResult, LoadReport, Outcome
from dify_kb.bench.html_report import PageSection, ReportTable, render_page
from dify_kb.bench.render_instance_report import format_duration, format_size
from dify_kb.bench.svg_charts import Chart, ChartSeries, format_number
from dify_kb.ingest.load_history import UPLOADING, LoadHistory, LoadSample
from dify_kb.ingest.progress import format_counts

from .bulk import format_count

if TYPE_CHECKING:
    from dify_kb.sync.sync_report import SyncReport

MAX_LISTED = 500
"""Failed files, and changes of a sync, that are listed on the page."""

RATE_POINTS = 40
"""Points of the chart of rates: fewer than samples, so that single ones do not dominate."""

MIN_WAIT_SHARE = 0.2
"""The part of the time from which a wait is mentioned in the verdict."""

MAX_AXIS = 300
"""The time axis has a larger unit beyond so many of the smaller one."""

_MEANINGS: Mapping[Outcome, str] = {
    Outcome.ADDED: "uploaded as a new document",
    Outcome.UPDATED: "uploaded as a new version of a document",
    Outcome.UNCHANGED: "sent by an earlier run, not sent again",
    Outcome.SKIPPED: "excluded by a rule, or its document is kept",
    Outcome.FAILED: "rejected, unreadable, or its indexing failed",
    Outcome.STALLED: "uploaded, but its indexing makes no progress",
    Outcome.UNKNOWN: "sent, but the response was lost and no document found",
    Outcome.PENDING: "not sent before the run stopped",
}

_LOADED = (Outcome.ADDED, Outcome.UPDATED, Outcome.UNCHANGED)


@frozen(kw_only=True)
class LoadPage:
    """The content of a page beside the report."""

    title: str
    datasets: Sequence[str]
    """The names of the datasets."""

    facts: Sequence[tuple[str, str]]
    """The server, the source and the time, as names and values."""

    history: LoadHistory
    failures: Sequence[ItemResult] = ()
    """The files that were not loaded, at most `MAX_LISTED`."""

    interrupted: bool = False


def render_load_page(report: LoadReport, page: LoadPage) -> str:
    """Return the HTML page of a finished or interrupted load or sync."""
    facts = [
        ("dataset", ", ".join(page.datasets)),
        *page.facts,
        ("took", format_duration(report.seconds)),
        ("uploaded", f"{format_size(report.bytes)}, {format_number(report.goodput)} documents/s"),
    ]
    if report.requests:  # of an interrupted run they are not known
        facts.append(("requests", f"{report.requests:,}, {report.retries:,} of them retries"))
    if report.journal:
        facts.append(("journal", report.journal))
    sections = [_outcome_section(report)]
    if page.failures:
        sections += _failure_sections(page.failures, _count_not_loaded(report))
    if report.skipped_reasons:
        sections.append(
            PageSection(heading="Skipped files", table=_count_table(report.skipped_reasons))
        )
    sections += _sync_sections(report)
    if not report.dry_run and page.history.samples[-1].uploaded:
        sections.append(_speed_section(page.history))
    if page.history.spent and not report.dry_run:
        sections.append(_time_section(page.history))
    return render_page(
        page.title,
        facts,
        sections,
        verdict=load_verdict(report, page),
        warnings=report.warnings,
    )


def load_verdict(report: LoadReport, page: LoadPage) -> str:
    """Return the result in a few sentences."""
    where = " and ".join(page.datasets) if len(page.datasets) < 3 else "the datasets"  # noqa: PLR2004
    counts = _outcome_counts(report)
    loaded = sum(counts[outcome] for outcome in _LOADED) + _sync_counts(report).get("renamed", 0)
    files = format_count(report.found, "file")
    if report.dry_run:
        return f"Dry run: {report.pending:,} of {files} would be sent to {where}."
    if report and loaded == report.found:
        subject = f"All {files} are" if loaded > 1 else f"{files} is"
        parts = [f"{subject} in {where}: {format_counts(counts)}." if loaded else "No files found."]
    else:
        not_loaded = {outcome: counts[outcome] for outcome in counts if outcome not in _LOADED}
        missing = format_counts(not_loaded)
        missing = f"; {missing}" if missing else ""
        parts = [f"{loaded:,} of {files} are in {where}{missing}."]
        if page.interrupted:
            parts.append("The run was interrupted; the same command resumes it.")
        if report.stopped is not None:
            parts.append(
                f"The run stopped: {report.stop_message or report.stopped}".rstrip(".") + "."
            )
    if (sync := _as_sync_report(report)) is not None and sync.held:
        parts.append(f"Deletes were held back: {sync.held}".rstrip(".") + ".")
    if report.seconds:
        parts.append(f"It took {format_duration(report.seconds)}{_main_wait(page.history)}.")
    return " ".join(parts)


def _main_wait(history: LoadHistory) -> str:
    """Return what most of the time was spent on besides uploads, if that was a large part."""
    total = sum(history.spent.values())
    waits = ((name, spent) for name, spent in history.spent.items() if name != UPLOADING)
    activity, seconds = next(waits, ("", 0.0))
    if not total or seconds < MIN_WAIT_SHARE * total:
        return ""
    return f"; {100 * seconds / total:.0f} % of the time: {activity.removeprefix('waiting: ')}"


def _outcome_counts(report: LoadReport) -> dict[Outcome, int]:
    return {outcome: getattr(report, outcome) for outcome in Outcome}


def _count_not_loaded(report: LoadReport) -> int:
    pending = 0 if report.dry_run else report.pending
    return report.failed + report.stalled + report.unknown + pending


def _outcome_section(report: LoadReport) -> PageSection:
    rows = [
        [str(outcome), f"{count:,}", _MEANINGS[outcome]]
        for outcome, count in _outcome_counts(report).items()
        if count or outcome in {Outcome.ADDED, Outcome.FAILED}
    ]
    rows += [
        [name, f"{count:,}", _SYNC_MEANINGS[name]] for name, count in _sync_counts(report).items()
    ]
    if report.metadata_set:
        rows.append(
            ["metadata set", f"{report.metadata_set:,}", "documents whose metadata was set"]
        )
    return PageSection(
        heading=f"{report.found:,} files found",
        text="Every file has exactly one outcome.",
        table=ReportTable(columns=("outcome", "files", "meaning"), rows=rows, sortable=False),
    )


def _failure_sections(failures: Sequence[ItemResult], bad: int) -> Sequence[PageSection]:
    reasons = Counter(
        f"{result.outcome}: {result.reason or 'no reason given'}" for result in failures
    )
    more = f" The first {len(failures):,} of {bad:,}." if len(failures) < bad else ""
    rows = [[result.key, str(result.outcome), result.reason or ""] for result in failures]
    return [
        PageSection(
            heading="Why files were not loaded", text=more.strip(), table=_count_table(reasons)
        ),
        PageSection(
            heading="Files that were not loaded",
            text=f"`dify-kb journal show --failures` lists all.{more}" if more else "",
            table=ReportTable(columns=("file", "outcome", "reason"), rows=rows),
        ),
    ]


def _count_table(counts: Mapping[str, int]) -> ReportTable:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [[reason, f"{count:,}"] for reason, count in ordered]
    return ReportTable(columns=("reason", "files"), rows=rows)


def _speed_section(history: LoadHistory) -> PageSection:
    samples = _thin_out(history.samples)
    unit, length = _time_unit(samples[-1].seconds)
    times = [sample.seconds / length for sample in samples]
    middle = [(one + other) / 2 for one, other in itertools.pairwise(times)]
    counts = {
        "uploaded": [sample.uploaded for sample in samples],
        "indexed": [sample.indexed for sample in samples],
        "failed": [sample.failed for sample in samples],
    }
    rates = {
        name: [
            (count - before) / max(1e-3, length * (later - earlier))
            for (before, count), (earlier, later) in zip(
                itertools.pairwise(counts[name]), itertools.pairwise(times), strict=True
            )
        ]
        for name in ("uploaded", "indexed")
    }
    return PageSection(
        heading="Speed",
        charts=[
            _build_chart("Files per second", unit, "files/s", middle, rates),
            _build_chart("Files so far", unit, "files", times, counts),
        ],
    )


def _build_chart(
    title: str, x: str, y: str, times: Sequence[float], values: Mapping[str, Sequence[float]]
) -> Chart:
    series = [
        ChartSeries(name=name, points=list(zip(times, of_series, strict=True)))
        for name, of_series in values.items()
    ]
    return Chart(title=title, x=x, y=y, series=series)


def _time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit of the time axis and its seconds."""
    units = (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0))
    return next((unit for unit in units if seconds < MAX_AXIS * unit[1]), units[-1])


def _thin_out(samples: Sequence[LoadSample]) -> Sequence[LoadSample]:
    step = max(1, -(-len(samples) // RATE_POINTS))
    start = LoadSample(seconds=0.0, uploaded=0, indexed=0, failed=0)
    kept = [*samples[step - 1 :: step]]
    return [start, *kept, *([samples[-1]] if kept[-1:] != [samples[-1]] else [])]


def _time_section(history: LoadHistory) -> PageSection:
    total = sum(history.spent.values()) or 1.0
    rows = [
        [activity, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %"]
        for activity, seconds in history.spent.items()
        if seconds >= 0.001 * total
    ]
    return PageSection(
        heading="What the time was spent on",
        text="At each moment one thing counts: a failing or silent server before uploads, uploads"
        " before indexing, indexing before reading the source.",
        table=ReportTable(columns=("activity", "seconds", "share"), rows=rows),
    )


_SYNC_MEANINGS: Mapping[str, str] = {
    "renamed": "the document got the new name of its file",
    "deleted": "the document was deleted or taken out of retrieval, since its file is gone",
    "kept back": "the document was neither updated nor deleted",
    "conflicts": "not loaded, since a document of somebody else has its name",
    "foreign": "documents that this sync did not make; it never changes them",
}


def _sync_counts(report: LoadReport) -> Mapping[str, int]:
    """Return the counts that only a sync has."""
    sync = _as_sync_report(report)
    if sync is None:
        return {}
    return {name: getattr(sync, name.replace(" ", "_")) for name in _SYNC_MEANINGS}


def _sync_sections(report: LoadReport) -> Sequence[PageSection]:
    sync = _as_sync_report(report)
    sections: list[PageSection] = []
    if sync is not None and sync.kept_back_reasons:
        table = _count_table(sync.kept_back_reasons)
        sections.append(PageSection(heading="Documents that were kept back", table=table))
    if sync is not None and sync.changes:
        rows = [
            [
                str(change.action),
                f"{change.old_key} → {change.key}" if change.old_key else change.key,
                change.reason or "",
            ]
            for change in itertools.islice(sync.changes, MAX_LISTED)
        ]
        more = f"The first {MAX_LISTED} of {len(sync.changes):,}."
        sections.append(
            PageSection(
                heading="Changes",
                text=more if len(sync.changes) > MAX_LISTED else "",
                table=ReportTable(columns=("change", "file", "reason"), rows=rows),
            )
        )
    return sections


def _as_sync_report(report: LoadReport) -> SyncReport | None:
    from dify_kb.sync.sync_report import SyncReport

    return report if isinstance(report, SyncReport) else None
