"""What was found of retrieval, as a table and as a page. Pure."""

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
    "Recall: the part of what is relevant that is found. MRR: one by the rank of the first that is."
    " nDCG: the order of all, 1 is perfect; ± is two standard errors of it. Missed are queries of"
    " which nothing was found. Characters are those of a passage: longer ones hold more, and cost"
    " more to read. Bold rows cannot be told from the best one by these queries."
)


def quality_table(report: QualityReport) -> ReportTable:
    """Tell all rows, the best first; those that cannot be told from the best stand out."""
    max_k = max(report.ks)
    columns = ("cut", "method", *(f"recall@{k}" for k in report.ks), "MRR", f"nDCG@{max_k}", "±",
               "missed", "characters", "p50 ms", "")  # fmt: skip
    return ReportTable(
        columns=columns,
        rows=[_row_cells(row, report.ks, best=not index) for index, row in enumerate(report.rows)],
        highlighted=[index for index, row in enumerate(report.rows) if row.tied],
    )


def quality_facts(report: QualityReport) -> Sequence[tuple[str, str]]:
    """Tell what was measured."""
    return [
        ("server", report.where.server),
        ("version", report.where.server_version or "not told"),
        ("queries", f"{report.queries:,} from {report.source}"),
        ("documents", f"{report.documents:,}"),
        ("models", ", ".join(report.models) or "none (economy)"),
        ("measured", f"{report.where.when}, {report.seconds:.0f} s, {report.requests:,} requests"),
        ("client", f"dify-kb {report.where.client}"),
    ]


def render_quality_page(report: QualityReport) -> str:
    """Write the page."""
    bases = list(dict.fromkeys(row.base for row in report.rows))
    charts = [
        Chart(
            title=f"Recall by the number of passages: {base}",
            x="passages (k)",
            y="recall",
            scale="doubling",
            series=[
                ChartSeries(
                    name=row.method, points=[(k, row.recall[str(k)].value) for k in report.ks]
                )
                # In the same order in each chart, so that colours mean the same.
                for row in sorted(report.rows, key=lambda row: row.method)
                if row.base == base
            ],
        )
        for base in bases
    ]
    sections = [
        PageSection(
            heading="All configurations",
            text=LEGEND,
            table=quality_table(report),
        ),
        PageSection(heading="Recall", charts=charts),
    ]
    if report.missed:
        rows = [[missed.query, "; ".join(missed.relevant)] for missed in report.missed]
        sections.append(
            PageSection(
                heading="What the best one did not find",
                table=ReportTable(columns=("query", "relevant"), rows=rows),
            )
        )
    if report.notes:
        sections.append(PageSection(heading="Notes", text=" ".join(report.notes)))
    return render_page("How well this Dify finds", quality_facts(report), sections)


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
