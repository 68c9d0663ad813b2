"""Render a quality report as a table and as an HTML page. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.bench.html_report import (
    Chart,
    ChartSeries,
    PageSection,
    ReportTable,
    format_number,
    render_page,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.bench.metrics import Mean
    from dify_kb.bench.results import QualityReport, QualityRow

LEGEND = (
    "Recall@k: part of the relevant items among the first k chunks. MRR: mean of 1 / rank of the"
    " first relevant item. nDCG: quality of the order, 1 is perfect; ± is two standard errors."
    " Missed: queries for which nothing relevant was found. Characters: mean length of a chunk;"
    " longer chunks contain more and cost more tokens. Bold rows do not differ significantly from"
    " the best one."
)


def quality_table(report: QualityReport) -> ReportTable:
    """Return a table of all rows, with those highlighted that are as good as the best."""
    max_k = max(report.ks)
    columns = ("dataset", "method", *(f"recall@{k}" for k in report.ks), "MRR", f"nDCG@{max_k}",
               "±", "missed", "characters", "p50 ms", "")  # fmt: skip
    return ReportTable(
        columns=columns,
        rows=[_row_cells(row, report.ks, best=not index) for index, row in enumerate(report.rows)],
        highlighted=[index for index, row in enumerate(report.rows) if row.tied],
    )


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
                    name=row.method, points=[(k, row.recall[str(k)].value) for k in report.ks]
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
    return render_page("Dify retrieval quality", quality_facts(report), sections)


def _row_cells(row: QualityRow, ks: Sequence[int], *, best: bool) -> Sequence[str]:
    return [
        row.base,
        row.method,
        *(_format_part(row.recall[str(k)]) for k in ks),
        _format_part(row.mrr),
        _format_part(row.ndcg),
        f"{row.ndcg.error:.2f}",
        str(row.missed),
        format_number(row.characters),
        format_number(1000 * row.latency.p50) if row.latency else "-",
        "best" if best else "as good" if row.tied else "",
    ]


def _format_part(mean: Mean) -> str:
    return f"{mean.value:.2f}"
