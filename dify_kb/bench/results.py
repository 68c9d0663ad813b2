"""Results of benchmarks as frozen values and as JSON files. Times are seconds, sizes bytes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from attrs import field, frozen

from dify_kb.errors import ConfigError
from dify_kb.wire import codec

from .benchmark_plan import LoadEstimate
from .metrics import Latency, Mean, Ranks, Spread
from .saturation_point import SaturationPoint

if TYPE_CHECKING:
    from pathlib import Path

    from dify_kb.client import AsyncClient

FORMAT = 1
"""Version of the JSON format; incremented for changes that older readers would misread."""


@frozen(kw_only=True)
class Environment:
    """The server, the client machine and the time of a measurement."""

    when: str
    """ISO 8601, UTC."""

    server: str
    server_version: str | None
    client: str
    python: str
    machine: str
    processors: int
    ping: Latency | None
    """Latency of a small read, approximately the network latency."""


@frozen(kw_only=True)
class ConcurrencyLevel:
    """Results of one concurrency level. `rate` is responses per second, over the rounds."""

    at_once: int
    rate: Spread
    latency: Latency | None
    errors: int


@frozen(kw_only=True)
class UploadResult:
    """Uploads of files of one size. `knee` is the saturation point."""

    size: int
    levels: Sequence[ConcurrencyLevel]
    knee: SaturationPoint | None


@frozen(kw_only=True)
class SearchResult:
    """Searches by one method for `top_k` chunks. `knee` is the saturation point."""

    method: str
    top_k: int
    levels: Sequence[ConcurrencyLevel]
    knee: SaturationPoint | None


@frozen(kw_only=True)
class IndexingResult:
    """Indexing of the documents of the corpus.

    `available` is the time that a user waits: from the response to the create request until a list
    shows the document as indexed, accurate to one poll interval. `queued` and `worked` are by the
    server's timestamps, in whole seconds: from creation to the start of work, and from there to
    the end. All of them, `rate` and `course` are those of the completed documents only.
    """

    technique: str
    documents: int
    completed: int
    failed: int
    unfinished: int
    """Documents still being indexed at the timeout."""

    bytes: int
    chunks: int
    seconds: float
    """From the first create request to the last document that was indexed."""

    rate: float
    """Documents per second over that time."""

    available: Spread | None
    queued: Spread | None
    worked: Spread | None
    course: Sequence[tuple[float, int]]
    """Seconds since the first create request, and the documents indexed by then."""

    reasons: Mapping[str, int] = field(factory=dict)
    """The reasons of failed documents, with their number, the most frequent first."""


@frozen(kw_only=True)
class ListPageLatency:
    """Latency of a list page of 100 documents, in a dataset of `documents`."""

    documents: int
    first: Spread
    last: Spread
    """The last page."""


@frozen(kw_only=True)
class ErrorSummary:
    """Failed requests of one endpoint and kind of error."""

    endpoint: str
    kind: str
    count: int
    example: str


@frozen(kw_only=True)
class InstanceReport:
    """Report of a server. Parts that could not be measured are empty; `notes` has the reasons."""

    where: Environment
    plan: str
    load: LoadEstimate
    """The maximum that was announced."""

    models: Sequence[str]
    """The embedding and reranking models, as `provider:model`."""

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
    """Results of one search method on one dataset. `mrr` and `ndcg` are at the largest k."""

    base: str
    """The chunking of a temporary dataset, or the name of an existing one."""

    method: str
    recall: Mapping[str, Mean]
    """Recall by k."""

    mrr: Mean
    ndcg: Mean
    missed: int
    """Queries for which nothing relevant was found."""

    tied: bool
    """Whether its nDCG is not significantly lower than that of the best row."""

    characters: float
    """Mean length of a chunk: longer ones contain more, and cost more tokens."""

    latency: Latency | None
    ranks: Sequence[Ranks]
    """For each query, the best rank of each relevant item, or None if it was not found."""


@frozen(kw_only=True)
class MissedQuery:
    """A query for which the best method found nothing relevant."""

    query: str
    relevant: Sequence[str]


@frozen(kw_only=True)
class QualityReport:
    """Retrieval quality of a server, by queries with known answers."""

    where: Environment
    source: str
    """Origin of the queries."""

    queries: int
    documents: int
    models: Sequence[str]
    """The embedding and reranking models, as `provider:model`."""

    ks: Sequence[int]
    rows: Sequence[QualityRow]
    """Sorted by nDCG, the best first."""

    asked: Sequence[str]
    """The texts of the queries, in the order of `QualityRow.ranks`."""

    drafts: int
    """Queries that `eval draft` proposed and nobody has reviewed."""

    missed: Sequence[MissedQuery]
    notes: Sequence[str]
    requests: int
    seconds: float
    type: str = "eval"
    format: int = FORMAT


Report = InstanceReport | QualityReport


STUB_PROVIDER = "dify-kb/emulator/"
"""The beginning of the provider of the embedded server's models, which are not trained."""


def has_stub_models(models: Sequence[str]) -> bool:
    """Return whether any model is one of the embedded server: its scores say little."""
    return any(model.startswith(STUB_PROVIDER) for model in models)


REPORT_TYPES: dict[object, type[Report]] = {"bench": InstanceReport, "eval": QualityReport}


def dump_report(report: Report) -> str:
    """Return a report as one line of JSON."""
    return json.dumps(codec.encode_fields(report), ensure_ascii=True)


def load_report(file: Path) -> Report:
    """Read the last report in a file of JSON Lines.

    Raises:
        ConfigError: the file cannot be read or contains no report of this format.
    """
    try:
        values = [_parse_line(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"Cannot read {file}: {reason}.", hint="Pass a file written by `--save`."
        ) from error
    reports = [value for value in values if value.get("type") in REPORT_TYPES]
    if not reports:
        raise ConfigError(
            f"{file} contains no report.",
            hint="Write one with `dify-kb bench --save FILE` or `dify-kb eval --save FILE`.",
        )
    if reports[-1].get("format") != FORMAT:
        raise ConfigError(
            f"{file} has report format {reports[-1].get('format')!r}; supported: {FORMAT}.",
            hint="Use the version of dify-kb that wrote it, or measure again.",
        )
    try:
        return codec.decode(REPORT_TYPES[reports[-1]["type"]], reports[-1])
    except codec.DecodeError as error:
        raise ConfigError(
            f"{file} contains an invalid report: {error}.", hint="Measure again."
        ) from error


def _parse_line(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def describe_environment(client: AsyncClient, ping: Latency | None = None) -> Environment:
    """Return the server of an open client that has sent a request, and this machine."""
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
