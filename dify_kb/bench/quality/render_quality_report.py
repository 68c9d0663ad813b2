"""Render a quality report as a table and as an HTML page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.bench.html_report import PageSection, ReportTable, render_page
from dify_kb.bench.results import has_stub_models
from dify_kb.bench.significance import MIN_QUERIES
from dify_kb.bench.svg_charts import Chart, ChartSeries, format_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.bench.metrics import Mean
    from dify_kb.bench.results import QualityReport, QualityRow

LEGEND = (
    "Recall@k: part of the relevant items among the first k chunks. MRR: mean of 1 / rank of the"
    " first relevant item. nDCG: quality of the order, 1 is perfect; ± is two standard errors."
    " Missed: queries for which nothing relevant was found. Characters: mean length of a chunk;"
    " longer chunks contain more and cost more tokens. Bold rows are not worse than the best one by"
    " more than chance (randomization test over all rows, 95 %)."
)

MODEL_FREE_METHODS = frozenset({"keyword", "full text"})
"""Search methods that call no model."""

STUB_MARK = " (stub model)"

STUB_WARNING = (
    "Rows with “stub model” were searched with the stub models of the embedded server, which match"
    " words and parts of words, not meaning. They say nothing about a real embedding model."
)


def quality_verdict(report: QualityReport) -> str:
    """Return the result in a sentence: the best row, and which others are as good."""
    best, *others = report.rows
    k = str(report.ks[min(1, len(report.ks) - 1)])
    first = "the first passage" if k == "1" else f"the first {k} passages"
    name = f"“{best.base}, {best.method}”{STUB_MARK if _uses_stub(report, best) else ''}"
    found = f"{100 * best.recall[k].value:.0f} % of the answers among {first}"
    if report.queries < MIN_QUERIES:
        return (
            f"Too few queries to tell search methods apart: {report.queries}, at least"
            f" {MIN_QUERIES} are needed. Highest: {name}, with {found}."
        )
    tied = sum(row.tied for row in others)
    if not others:
        return f"{name} finds {found}."
    if not tied:
        return f"Best: {name}, with {found}. All {len(others)} others are worse."
    rest = f", {len(others) - tied} worse" if len(others) > tied else ""
    return (
        f"Highest: {name}, with {found}; {tied} of {len(others)} others are as good, as far as"
        f" {report.queries} queries can tell{rest}."
    )


def quality_warnings(report: QualityReport) -> Sequence[str]:
    """Return what one has to know to judge the result."""
    warnings = [STUB_WARNING] if any(_uses_stub(report, row) for row in report.rows) else []
    if report.drafts:
        warnings.append(
            f"{report.drafts} of {report.queries} queries are drafts that nobody has reviewed: they"
            " repeat words of their answers, which flatters keyword search."
        )
    return warnings


def _uses_stub(report: QualityReport, row: QualityRow) -> bool:
    return has_stub_models(report.models) and row.method not in MODEL_FREE_METHODS


def _method_name(report: QualityReport, row: QualityRow) -> str:
    return f"{row.method}{STUB_MARK if _uses_stub(report, row) else ''}"


def quality_table(report: QualityReport) -> ReportTable:
    """Return a table of all rows, with those highlighted that are as good as the best."""
    max_k = max(report.ks)
    columns = ("dataset", "method", "result", *(f"recall@{k}" for k in report.ks), "MRR",
               f"nDCG@{max_k}", "±", "missed", "characters", "p50 ms")  # fmt: skip
    is_told = report.queries >= MIN_QUERIES
    return ReportTable(
        columns=columns,
        rows=[
            _row_cells(report, row, _describe_result(row, is_told=is_told, best=not index))
            for index, row in enumerate(report.rows)
        ],
        highlighted=[index for index, row in enumerate(report.rows) if row.tied and is_told],
    )


def _describe_result(row: QualityRow, *, is_told: bool, best: bool) -> str:
    if not is_told:
        return "too few to tell"
    if best:
        return "best"
    return "as good" if row.tied else "worse"


def quality_facts(report: QualityReport) -> Sequence[tuple[str, str]]:
    """Return the environment of the evaluation, as names and values."""
    return [
        ("server", report.where.server),
        ("version", report.where.server_version or "unknown"),
        ("queries", f"{report.queries:,} from {report.source}"),
        ("documents", f"{report.documents:,}"),
        ("models", ", ".join(report.models) or "none (economy)"),
        ("measured", f"{report.where.when}, {report.seconds:.0f} s, {report.requests:,} requests"),
        ("client", f"dify-kb {report.where.client}"),
    ]


def render_quality_page(report: QualityReport) -> str:
    """Render a report as an HTML page with charts."""
    bases = list(dict.fromkeys(row.base for row in report.rows))
    charts = [
        Chart(
            title=f"Recall by number of chunks: {base}",
            x="chunks (k)",
            y="recall",
            scale="doubling",
            series=[
                ChartSeries(
                    name=_method_name(report, row),
                    points=[(k, row.recall[str(k)].value) for k in report.ks],
                )
                # The same order in each chart, so that a method has the same colour.
                for row in sorted(report.rows, key=lambda row: row.method)
                if row.base == base
            ],
        )
        for base in bases
    ]
    sections = [
        PageSection(
            heading="All search methods",
            text=LEGEND,
            table=quality_table(report),
        ),
        PageSection(heading="Recall", charts=charts),
    ]
    if report.missed:
        rows = [[missed.query, "; ".join(missed.relevant)] for missed in report.missed]
        sections.append(
            PageSection(
                heading="Queries missed by the best method",
                table=ReportTable(columns=("query", "relevant"), rows=rows),
            )
        )
    if report.notes:
        sections.append(PageSection(heading="Notes", text=" ".join(report.notes)))
    return render_page(
        "Dify retrieval quality",
        quality_facts(report),
        sections,
        verdict=quality_verdict(report),
        warnings=quality_warnings(report),
    )


def _row_cells(report: QualityReport, row: QualityRow, result: str) -> Sequence[str]:
    return [
        row.base,
        _method_name(report, row),
        result,
        *(_format_part(row.recall[str(k)]) for k in report.ks),
        _format_part(row.mrr),
        _format_part(row.ndcg),
        f"{row.ndcg.error:.2f}",
        str(row.missed),
        format_number(row.characters),
        format_number(1000 * row.latency.p50) if row.latency else "-",
    ]


def _format_part(mean: Mean) -> str:
    return f"{mean.value:.2f}"
