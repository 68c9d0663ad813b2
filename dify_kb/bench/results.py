"""Results of benchmarks as frozen values and as JSON files. Times are seconds, sizes bytes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.wire import codec

from .benchmark_plan import LoadEstimate
from .metrics import Latency, Mean, Spread
from .saturation_point import SaturationPoint

if TYPE_CHECKING:
    from pathlib import Path

    from dify_kb.client import AsyncClient

FORMAT = 1
"""Of the JSON; higher when a reader of the one before would misread it."""


@frozen(kw_only=True)
class Environment:
    """What was measured, from where, and when."""

    when: str
    """ISO 8601, UTC."""

    server: str
    server_version: str | None
    client: str
    python: str
    machine: str
    processors: int
    ping: Latency | None
    """Of a small read: how far away the server is."""


@frozen(kw_only=True)
class ConcurrencyLevel:
    """A number of requests at once. `rate` is answers a second, over the rounds."""

    at_once: int
    rate: Spread
    latency: Latency | None
    errors: int


@frozen(kw_only=True)
class UploadResult:
    """Uploads of files of one size. The knee tells how many at once fill the server."""

    size: int
    levels: Sequence[ConcurrencyLevel]
    knee: SaturationPoint | None


@frozen(kw_only=True)
class SearchResult:
    """Searches of one method that ask for `top_k` passages."""

    method: str
    top_k: int
    levels: Sequence[ConcurrencyLevel]
    knee: SaturationPoint | None


@frozen(kw_only=True)
class IndexingResult:
    """How documents of the corpus were indexed after they were accepted.

    `available` is what a user waits: from the answer of the create until a list shows the end, so
    known to one interval of looking. `queued` and `worked` are the server's own times, in whole
    seconds: from the creation to the begin of its work, and from there to the end.
    """

    technique: str
    documents: int
    completed: int
    failed: int
    unfinished: int
    """Not at their end when the time was over."""

    bytes: int
    chunks: int
    seconds: float
    """From the first create to the last end seen."""

    rate: float
    """Documents a second over that time."""

    available: Spread | None
    queued: Spread | None
    worked: Spread | None
    course: Sequence[tuple[float, int]]
    """Seconds since the first create, and how many were at their end by then."""


@frozen(kw_only=True)
class ListPageLatency:
    """What a page of 100 documents costs in a base of so many."""

    documents: int
    first: Spread
    last: Spread
    """The last page."""


@frozen(kw_only=True)
class ErrorSummary:
    """Requests of one endpoint that met the same."""

    endpoint: str
    kind: str
    count: int
    example: str


@frozen(kw_only=True)
class InstanceReport:
    """What an instance does. Parts that could not be measured are empty, and `notes` tells why."""

    where: Environment
    plan: str
    load: LoadEstimate
    """What was announced."""

    uploads: Sequence[UploadResult]
    indexed: IndexingResult | None
    searches: Sequence[SearchResult]
    listed: Sequence[ListPageLatency]
    troubles: Sequence[ErrorSummary]
    notes: Sequence[str]
    requests: int
    documents: int
    seconds: float
    type: str = "bench"
    format: int = FORMAT


@frozen(kw_only=True)
class QualityRow:
    """One way to search one base. `mrr` and `ndcg` are within the largest k."""

    base: str
    """How the base was cut, or its name."""

    method: str
    recall: Mapping[str, Mean]
    """By k."""

    mrr: Mean
    ndcg: Mean
    missed: int
    """Queries of which nothing relevant was found."""

    tied: bool
    """Whether its nDCG cannot be told from that of the best row."""

    characters: float
    """Of a passage, on average: longer ones hold more, and cost more to read."""

    latency: Latency | None


@frozen(kw_only=True)
class MissedQuery:
    """A query of which nothing relevant was found by the best row."""

    query: str
    relevant: Sequence[str]


@frozen(kw_only=True)
class QualityReport:
    """How well an instance finds what is known to be there."""

    where: Environment
    source: str
    """Where the queries are from."""

    queries: int
    documents: int
    models: Sequence[str]
    ks: Sequence[int]
    rows: Sequence[QualityRow]
    """The best nDCG first."""

    missed: Sequence[MissedQuery]
    notes: Sequence[str]
    requests: int
    seconds: float
    type: str = "eval"
    format: int = FORMAT


Report = InstanceReport | QualityReport

REPORT_TYPES: dict[object, type[Report]] = {"bench": InstanceReport, "eval": QualityReport}


def dump_report(report: Report) -> str:
    """Write a report as one line of JSON."""
    return json.dumps(codec.encode_fields(report), ensure_ascii=True)


def load_report(file: Path) -> Report:
    """Read a report: the last one in a file of JSON Lines.

    Raises:
        ConfigError: there is none that this version reads.
    """
    try:
        values = [_parse_line(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}).", hint="Name a report.") from error
    reports = [value for value in values if value.get("type") in REPORT_TYPES]
    if not reports:
        raise ConfigError(
            f"{file} holds no report.", hint="`dify-kb bench --save FILE` writes one; so does eval."
        )
    if reports[-1].get("format") != FORMAT:
        raise ConfigError(
            f"{file} holds a report of format {reports[-1].get('format')!r}, not {FORMAT}.",
            hint="Read it with the version of dify-kb that wrote it, or measure again.",
        )
    try:
        return codec.decode(REPORT_TYPES[reports[-1]["type"]], reports[-1])
    except codec.DecodeError as error:
        raise ConfigError(
            f"{file} holds a report that cannot be read: {error}.", hint="Measure again."
        ) from error


def _parse_line(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def describe_environment(client: AsyncClient, ping: Latency | None = None) -> Environment:
    """Tell the server of an open client that has answered before, and this machine."""
    return Environment(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        server=client.base_url,
        server_version=client.server_version,
        client=version("dify-kb"),
        python=platform.python_version(),
        machine=platform.platform(),
        processors=os.cpu_count() or 1,
        ping=ping,
    )
