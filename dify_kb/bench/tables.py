"""What a run found as tables, for the terminal and for the page alike. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .page import Table
from .plan import KIB, MIB
from .svg import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .numbers import Latency, Spread
    from .report import Indexed, InstanceReport, Level, Listed, Searches, Trouble, Uploads

LATENCY = ("p50 ms", "p95 ms", "p99 ms")


def bytes_of(size: float) -> str:
    """Write a size."""
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{number(size / unit)} {name}"
    return f"{size:.0f} bytes"


def uploads(found: Uploads) -> Table:
    """Tell the uploads of one size; the row of the knee stands out."""
    rows = [
        [
            str(level.at_once),
            *_rate(level.rate),
            number(level.rate.median * found.size / MIB),
            *_latency(level.latency),
            str(level.errors),
        ]
        for level in found.levels
    ]
    knee = found.knee.at_once if found.knee and found.knee.reached else 0
    return Table(
        columns=("at once", "files/s", "spread", "MiB/s", *LATENCY, "errors"),
        rows=rows,
        chosen=_chosen(found.levels, knee),
    )


def knee_of(found: Uploads | Searches) -> str:
    """Tell where the server is full, in a sentence."""
    knee = found.knee
    if knee is None:
        return "Too little was answered to tell a knee."
    if not knee.reached:
        return f"Not full at {knee.at_once} at once: more would bring more."
    return f"The knee is at {knee.at_once}: full with {number(knee.most)} a second."


def searches(found: Sequence[Searches]) -> Table:
    """Tell the searches of all methods."""
    rows = [
        [
            row.method,
            str(row.top_k),
            str(level.at_once),
            *_rate(level.rate),
            *_latency(level.latency),
            str(level.errors),
        ]
        for row in found
        for level in row.levels
    ]
    return Table(
        columns=("method", "top k", "at once", "queries/s", "spread", *LATENCY, "errors"), rows=rows
    )


def indexed(found: Indexed) -> Table:
    """Tell how documents were indexed."""
    times = (
        ("accepted to available, s", found.available),
        ("waiting for the worker, s", found.queued),
        ("work, s", found.worked),
    )
    rows = [
        ["documents", str(found.documents), ""],
        ["  completed", str(found.completed), ""],
        ["  failed", str(found.failed), ""],
        ["  unfinished", str(found.unfinished), ""],
        ["size", bytes_of(found.bytes), ""],
        ["chunks", str(found.chunks), ""],
        ["documents/s", number(found.rate), ""],
        *([name, *_spread(spread)] for name, spread in times),
    ]
    return Table(columns=("", found.technique, "spread"), rows=rows)


def listed(found: Sequence[Listed]) -> Table:
    """Tell what pages cost."""
    rows = [[f"{row.documents:,}", *_ms(row.first), *_ms(row.last)] for row in found]
    return Table(
        columns=("documents", "first page ms", "spread", "last page ms", "spread"), rows=rows
    )


def troubles(found: Sequence[Trouble]) -> Table:
    """Tell what was met."""
    rows = [[row.endpoint, row.kind, str(row.count), row.example] for row in found]
    return Table(columns=("request", "what", "times", "for example"), rows=rows)


def facts(report: InstanceReport) -> Sequence[tuple[str, str]]:
    """Tell what was measured."""
    where = report.where
    ping = f"{number(1000 * where.ping.p50)} ms" if where.ping else "-"
    return [
        ("server", where.server),
        ("version", where.server_version or "not told"),
        ("measured", f"{where.when}, plan {report.plan}, {report.seconds:.0f} s"),
        ("from", f"{where.machine}, {where.processors} processors, Python {where.python}"),
        ("client", f"dify-kb {where.client}"),
        ("a small read takes", ping),
        ("cost", f"{report.requests:,} requests, {report.documents:,} documents"),
    ]


def _rate(spread: Spread) -> tuple[str, str]:
    return number(spread.median), f"{number(spread.low)}-{number(spread.high)}"


def _ms(spread: Spread) -> tuple[str, str]:
    return number(1000 * spread.median), f"{number(1000 * spread.low)}-{number(1000 * spread.high)}"


def _spread(spread: Spread | None) -> tuple[str, str]:
    return ("-", "") if spread is None else _rate(spread)


def _latency(latency: Latency | None) -> Sequence[str]:
    if latency is None:
        return ["-"] * 3
    return [number(1000 * value) for value in (latency.p50, latency.p95, latency.p99)]


def _chosen(levels: Sequence[Level], knee: int) -> Sequence[int]:
    """Give the row of the knee: the first number measured that is as large."""
    reaching = [place for place, level in enumerate(levels) if level.at_once >= knee > 0]
    return reaching[:1]
