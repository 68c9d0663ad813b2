"""The page of a run on an instance. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import tables
from .page import Section, Table, page
from .svg import Chart, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .report import Indexed, InstanceReport, Listed, Searches, Uploads


def instance_page(report: InstanceReport) -> str:
    """Write the page."""
    sections = [
        *(_uploads(found) for found in report.uploads),
        *([_indexed(report.indexed)] if report.indexed else []),
        *([_searches(report.searches)] if report.searches else []),
        *([_listed(report.listed)] if report.listed else []),
        _met(report),
    ]
    return page("How fast this Dify is", tables.facts(report), sections)


def _uploads(found: Uploads) -> Section:
    name = tables.bytes_of(found.size)
    knee = found.knee
    marks = {float(knee.at_once): "knee"} if knee and knee.reached else {}
    rate = Chart(
        title=f"Files a second, {name} each",
        x="uploads at once",
        y="files/s",
        scale="doubling",
        marks=marks,
        series=[
            Series(
                name="files/s",
                points=[(level.at_once, level.rate.median) for level in found.levels],
                spreads=[(level.rate.low, level.rate.high) for level in found.levels],
            )
        ],
    )
    known = [(level.at_once, level.latency) for level in found.levels if level.latency]
    latency = Chart(
        title=f"Time of an upload, {name} each",
        x="uploads at once",
        y="ms",
        scale="doubling",
        marks=marks,
        series=[
            Series(name="median", points=[(at, 1000 * times.p50) for at, times in known]),
            Series(name="95th percentile", points=[(at, 1000 * times.p95) for at, times in known]),
        ],
    )
    return Section(
        heading=f"Uploads of {name}",
        text=f"{tables.knee_of(found)} Bars show the least and the most of the rounds.",
        charts=(rate, latency),
        table=tables.uploads(found),
    )


def _indexed(found: Indexed) -> Section:
    chart = Chart(
        title="Documents available",
        x="seconds since the first upload",
        y="documents",
        series=[Series(name="documents", points=[(0.0, 0.0), *found.course])],
    )
    return Section(
        heading="Indexing",
        text="Waiting and work are the server's own times, in whole seconds.",
        charts=(chart,),
        table=tables.indexed(found),
    )


def _searches(found: Sequence[Searches]) -> Section:
    charts: list[Chart] = []
    for top_k in sorted({row.top_k for row in found}):
        rows = [row for row in found if row.top_k == top_k]
        charts += [
            Chart(
                title=f"Queries a second, top {top_k}",
                x="queries at once",
                y="queries/s",
                scale="doubling",
                series=[
                    Series(
                        name=row.method,
                        points=[(level.at_once, level.rate.median) for level in row.levels],
                    )
                    for row in rows
                ],
            ),
            Chart(
                title=f"Time of a query, 95th percentile, top {top_k}",
                x="queries at once",
                y="ms",
                scale="doubling",
                series=[
                    Series(
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
    return Section(heading="Retrieval", charts=charts, table=tables.searches(found))


def _listed(found: Sequence[Listed]) -> Section:
    chart = Chart(
        title="Time of a page of 100 documents",
        x="documents in the base",
        y="ms",
        series=[
            Series(
                name="first page",
                points=[(row.documents, 1000 * row.first.median) for row in found],
            ),
            Series(
                name="last page", points=[(row.documents, 1000 * row.last.median) for row in found]
            ),
        ],
    )
    return Section(heading="Listing", charts=(chart,), table=tables.listed(found))


def _met(report: InstanceReport) -> Section:
    text = " ".join(report.notes) or "Everything of the plan was measured."
    table: Table | None = tables.troubles(report.troubles) if report.troubles else None
    told = "" if report.troubles else " No request failed."
    return Section(heading="Errors met", text=f"{text}{told}", table=table)
