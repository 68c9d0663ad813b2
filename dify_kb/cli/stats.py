from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import define, field, frozen

import dify_kb
from dify_kb.arguments import parse_duration
from dify_kb.errors import BadRequestError, ForbiddenError, NotFoundError

from . import completion, name_lookup, option_types, output
from .bulk import SOME_FAILED, WORKERS, ChangeReporter
from .datasets import iterate_datasets
from .name_lookup import ResourceRef
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, Document

MAX_COUNTED_DOCUMENTS = 1000
"""Documents up to which chunks are counted without --chunks, at one request each."""

MAX_DETAIL_REQUESTS = 200
"""Unfinished documents, oldest first, whose last change is requested one by one; the creation time
counts for the others."""

MAX_LISTED = 10
"""The number of stuck documents listed per dataset."""


def stats(
    context: typer.Context,
    dataset: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME|ID",
            help="Name or id of the dataset, or PROFILE:NAME; repeatable. Default: all datasets.",
            callback=option_types.select_datasets,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    chunks: Annotated[
        bool | None,
        typer.Option(
            "--chunks/--no-chunks",
            help="Count chunks, at one request per document; default: up to 1,000 documents.",
        ),
    ] = None,
    stuck_after: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Time without indexing progress (90s, 30m, 2h, or seconds) after which a document"
            " counts as stuck.",
        ),
    ] = "15m",
) -> None:
    """Count documents, chunks, errors and stuck documents.

    Errors are grouped by kind. Costs one request per 100 documents, and one for each document that
    is being indexed.
    """
    patience = timedelta(seconds=parse_duration(stuck_after, "--stuck-after"))

    async def main(client: AsyncClient) -> int:
        if dataset:
            found = [await name_lookup.find_dataset(client, name) for name in dataset]
        else:
            found = [row async for row in iterate_datasets(client, context.obj)]
        total = sum(row.document_count or 0 for row in found)
        count = total <= MAX_COUNTED_DOCUMENTS if chunks is None else chunks
        statistics: list[DatasetStatistics] = []
        reporter = ChangeReporter("dataset", "counted", json=is_json_output(context))
        for row in {row.id: row for row in found}.values():
            try:
                statistics.append(await _collect_statistics(client, row, patience, count=count))
            except (NotFoundError, ForbiddenError, BadRequestError) as error:
                if len(found) == 1:
                    raise
                reporter.report_refused(ResourceRef(row.id, row.name), error)
                continue
            if is_json_output(context):
                output.print_json({"type": "stats", **output.to_fields(statistics[-1])})
        if not is_json_output(context):
            _print_statistics(statistics)
        if chunks is None and not count:
            output.note(
                f"Chunks were not counted: pass --chunks to count them with {total:,} requests."
            )
        return SOME_FAILED if reporter.failed_count else 0

    run_with_client(context, main)


async def _collect_statistics(
    client: AsyncClient, dataset: Dataset, patience: timedelta, *, count: bool
) -> DatasetStatistics:
    rows = [row async for row in client.documents.iter(dataset)]
    changed = await _last_changes(client, dataset, rows)
    return DatasetStatistics(
        id=dataset.id,
        name=dataset.name,
        documents=len(rows),
        statuses=count_statuses(rows),
        characters=sum(row.word_count or 0 for row in rows),
        chunks=await _count_chunks(client, dataset, rows) if count else None,
        errors=count_errors(rows),
        stuck=find_stuck_documents(rows, changed, datetime.now(UTC), patience),
    )


async def _count_chunks(client: AsyncClient, dataset: Dataset, rows: Sequence[Document]) -> int:
    total, remaining = 0, iter(rows)

    async def worker() -> None:
        nonlocal total
        for row in remaining:
            page = await client.segments.list(dataset, row.id, limit=1)
            total += page.total

    async with anyio.create_task_group() as group:
        for _ in range(WORKERS):
            group.start_soon(worker)
    return total


async def _last_changes(
    client: AsyncClient, dataset: Dataset, rows: Sequence[Document]
) -> Mapping[str, datetime]:
    """Request the last change of the oldest unfinished documents; lists do not contain it."""
    changed: dict[str, datetime] = {}
    unfinished = sorted(
        (row for row in rows if not row.indexing_status.is_final),
        key=lambda row: row.created_at or datetime.now(UTC),
    )
    for row in unfinished[:MAX_DETAIL_REQUESTS]:
        try:
            detail = await client.documents.get(dataset, row.id, metadata="without")
        except NotFoundError:
            continue  # deleted since it was listed
        except BadRequestError:
            break  # a server before 1.8 does not have the endpoint
        if detail.updated_at is not None:
            changed[row.id] = detail.updated_at
    return changed


def _print_statistics(statistics: Sequence[DatasetStatistics]) -> None:
    names = ("dataset", "documents", "characters", "chunks", "errors", "stuck")
    lines = [
        (
            row.name,
            row.documents,
            row.characters,
            row.chunks,
            sum(row.errors.values()),
            len(row.stuck),
        )
        for row in statistics
    ]
    if len(lines) > 1:
        lines.append(_total_row(statistics))
    output.print_table(names, lines)
    for row in statistics:
        if row.errors or row.stuck or len(statistics) == 1:
            _print_details(row)


def _total_row(
    statistics: Sequence[DatasetStatistics],
) -> tuple[str, int, int, int | None, int, int]:
    chunks = [row.chunks for row in statistics if row.chunks is not None]
    return (
        "(all)",
        sum(row.documents for row in statistics),
        sum(row.characters for row in statistics),
        sum(chunks) if len(chunks) == len(statistics) else None,
        sum(sum(row.errors.values()) for row in statistics),
        sum(len(row.stuck) for row in statistics),
    )


def _print_details(row: DatasetStatistics) -> None:
    counts = ", ".join(f"{count:,} {status}" for status, count in row.statuses.items())
    output.out.print(f"\n{output.escape(row.name)}: {counts or 'no documents'}")
    for kind, count in row.errors.items():
        output.out.print(f"  {count:,} x {output.escape(kind)}")
    for stuck_document in row.stuck[:MAX_LISTED]:
        since = f"{stuck_document.since.astimezone():%Y-%m-%d %H:%M}"
        label = output.escape(f"{stuck_document.name} ({stuck_document.id})")
        output.out.print(f"  stuck in {stuck_document.status} since {since}: {label}")
    if len(row.stuck) > MAX_LISTED:
        output.out.print(f"  … and {len(row.stuck) - MAX_LISTED:,} more; pass --json to list all.")


NOTHING_INDEXED = "completed, but nothing was indexed"
"""The error kind of a document without text, which no search finds."""

MAX_KIND_LENGTH = 100
"""The length of an error kind, in characters."""

_VARIABLE_PARTS = (
    (
        re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE),
        "ID",
    ),
    (re.compile(r"(?<![\w.])/(?:[\w.@~+-]+/)*[\w.@~+-]+"), "PATH"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "'…'"),
    (re.compile(r"\b\d+(?:[.,]\d+)*"), "N"),
    (re.compile(r"\s+"), " "),
)
"""The parts that differ between errors of one kind: ids, temporary files, names, numbers."""


@frozen(kw_only=True)
class StuckDocument:
    """A document without indexing progress; `since` is its last known change."""

    id: str
    name: str
    status: str
    since: datetime


@frozen(kw_only=True)
class DatasetStatistics:
    """The counts of a dataset. `chunks` is None if they were not counted."""

    id: str
    name: str
    documents: int
    statuses: Mapping[str, int]
    characters: int
    """The sum of the server's word_count, which counts characters."""

    chunks: int | None
    errors: Mapping[str, int]
    stuck: Sequence[StuckDocument]


def error_kind(error: str) -> str:
    """Return an error text with placeholders for the parts that differ within its kind."""
    for pattern, name in _VARIABLE_PARTS:
        error = pattern.sub(name, error)
    error = error.strip() or "no reason given"
    return error if len(error) <= MAX_KIND_LENGTH else f"{error[: MAX_KIND_LENGTH - 1]}…"


def count_statuses(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count documents by display status, the most frequent first."""
    return _counted(Counter(str(row.display_status or row.indexing_status) for row in rows))


def count_errors(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count documents that no search finds by error kind, the most frequent first."""
    kinds = Counter[str]()
    for row in rows:
        if row.indexing_status is dify_kb.IndexingStatus.ERROR:
            kinds[error_kind(row.error or "")] += 1
        elif row.indexing_status is dify_kb.IndexingStatus.COMPLETED and row.word_count == 0:
            kinds[NOTHING_INDEXED] += 1
    return _counted(kinds)


def find_stuck_documents(
    rows: Sequence[Document],
    changed: Mapping[str, datetime],
    now: datetime,
    patience: timedelta,
) -> Sequence[StuckDocument]:
    """Return the documents without indexing progress for `patience`, the longest first.

    A document that is being indexed or paused is stuck if it did not change. A waiting document is
    stuck only if a younger one is done, or nothing is being indexed: a long queue that moves is
    not stuck.

    Args:
        changed: the last change of unfinished documents by id; the creation time counts for the
            others.
    """
    created = {row.id: row.created_at for row in rows if row.created_at is not None}
    done = [created[row.id] for row in rows if row.indexing_status.is_final and row.id in created]
    youngest = max(done, default=None)
    last_changes = {**created, **changed}
    stuck_document = {
        row.id: last_changes[row.id]
        for row in rows
        if not row.indexing_status.is_final
        and row.id in last_changes
        and now - last_changes[row.id] >= patience
    }
    moving = any(
        not row.indexing_status.is_final
        and row.id not in stuck_document
        and row.indexing_status is not dify_kb.IndexingStatus.WAITING
        for row in rows
    )
    found = [
        StuckDocument(
            id=row.id,
            name=row.name,
            status=str(row.indexing_status),
            since=stuck_document[row.id],
        )
        for row in rows
        if row.id in stuck_document
        and (
            row.indexing_status is not dify_kb.IndexingStatus.WAITING
            or not moving
            or (youngest is not None and youngest > stuck_document[row.id])
        )
    ]
    return sorted(found, key=lambda row: row.since)


def _counted(counter: Counter[str]) -> Mapping[str, int]:
    return dict(counter.most_common())


RATE_WINDOW = 300.0
"""Seconds over which documents per minute are counted."""


@frozen(kw_only=True)
class QueueSample:
    """The counts of a dataset at a time. `errors` counts by kind, the most frequent first."""

    time: float
    documents: int
    waiting: int
    indexing: int
    failed: int
    oldest_waiting: float | None
    """Time at which the document that waits longest was created or queued again."""

    errors: Mapping[str, int]

    @property
    def ended(self) -> int:
        """Documents that are neither waiting nor being indexed."""
        return self.documents - self.waiting - self.indexing


@define(kw_only=True)
class DatasetQueue:
    """A dataset and its latest samples."""

    id: str
    name: str
    failure: str = ""
    """Why the dataset could not be sampled, for example because it was deleted."""

    _samples: deque[QueueSample] = field(factory=deque)

    @property
    def latest(self) -> QueueSample | None:
        """The latest sample."""
        return self._samples[-1] if self._samples else None

    @property
    def per_minute(self) -> float | None:
        """Documents that ended per minute, over the last five minutes; None after one sample."""
        if len(self._samples) <= 1:
            return None
        first, last = self._samples[0], self._samples[-1]
        return max(0.0, (last.ended - first.ended) / (last.time - first.time) * 60)

    def add(self, sample: QueueSample) -> None:
        """Add a sample; samples before the window of the rate are dropped."""
        self.failure = ""
        if self._samples and sample.time <= self._samples[-1].time:
            self._samples.clear()  # the clock was set back
        self._samples.append(sample)
        while len(self._samples) > 1 and self._samples[1].time <= sample.time - RATE_WINDOW:
            self._samples.popleft()
