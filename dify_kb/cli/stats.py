from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import frozen

import dify_kb
from dify_kb.errors import BadRequestError, ForbiddenError, NotFoundError

from . import name_lookup, output
from .bulk import SOME_FAILED, WORKERS, ChangeReporter
from .name_lookup import ResourceRef
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, Document

MAX_COUNTED_DOCUMENTS = 1000
"""Documents whose chunks are counted unasked: a request each."""

MAX_DETAIL_REQUESTS = 200
"""Documents that are not done and are looked at one by one for their last change; of the others,
which are the younger ones, the creation counts."""

MAX_LISTED = 10
"""Stuck documents of a base that people are shown."""


def stats(
    context: typer.Context,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|ID", help="May be repeated; else all datasets."),
    ] = None,
    chunks: Annotated[
        bool | None,
        typer.Option(
            "--chunks/--no-chunks",
            help="Count chunks: a request a document. Else up to 1,000 documents.",
        ),
    ] = None,
    stuck_after: Annotated[
        float, typer.Option(min=0, help="Minutes without a change that are too long.")
    ] = 15,
) -> None:
    """Count documents, words, chunks, errors, and what is stuck.

    Errors are counted by their kind. Words are characters, as the server counts them. Costs a
    request per 100 documents, and one for each that is being indexed.
    """

    async def main(client: AsyncClient) -> int:
        if dataset:
            found = [await name_lookup.find_dataset(client, name) for name in dataset]
        else:
            found = [row async for row in client.datasets.iter(include_all=True)]
        total = sum(row.document_count for row in found)
        count = total <= MAX_COUNTED_DOCUMENTS if chunks is None else chunks
        patience = timedelta(minutes=stuck_after)
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
            output.err.print(f"Chunks were not counted ({total:,} requests); pass --chunks.")
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
        words=sum(row.word_count or 0 for row in rows),
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
    """Ask when the oldest documents that are not done last changed, which lists do not tell."""
    changed: dict[str, datetime] = {}
    unfinished = sorted(
        (row for row in rows if not row.indexing_status.is_final), key=lambda row: row.created_at
    )
    for row in unfinished[:MAX_DETAIL_REQUESTS]:
        try:
            detail = await client.documents.get(dataset, row.id, metadata="without")
        except NotFoundError:
            continue  # deleted meanwhile
        except BadRequestError:
            break  # a server before 1.8, which cannot tell
        if detail.updated_at is not None:
            changed[row.id] = detail.updated_at
    return changed


def _print_statistics(statistics: Sequence[DatasetStatistics]) -> None:
    names = ("dataset", "documents", "words", "chunks", "errors", "stuck")
    lines = [
        (row.name, row.documents, row.words, row.chunks, sum(row.errors.values()), len(row.stuck))
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
        sum(row.words for row in statistics),
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
        output.out.print(f"  … and {len(row.stuck) - MAX_LISTED:,} more; --json lists all.")


NOTHING_INDEXED = "completed, but nothing was indexed"
"""The kind of a document that no search finds although it has no error."""

MAX_KIND_LENGTH = 100
"""Characters of a kind of error."""

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
"""What differs between errors of one kind: ids, temporary files, names, numbers."""


@frozen(kw_only=True)
class StuckDocument:
    """A document that does not get on; `since` is its last change that the server tells."""

    id: str
    name: str
    status: str
    since: datetime


@frozen(kw_only=True)
class DatasetStatistics:
    """Numbers of one base. `chunks` is None where they were not counted."""

    id: str
    name: str
    documents: int
    statuses: Mapping[str, int]
    words: int
    """Characters: the server's word_count counts those."""

    chunks: int | None
    errors: Mapping[str, int]
    stuck: Sequence[StuckDocument]


def error_kind(error: str) -> str:
    """Give what errors of one kind have in common."""
    for pattern, name in _VARIABLE_PARTS:
        error = pattern.sub(name, error)
    error = error.strip() or "no reason given"
    return error if len(error) <= MAX_KIND_LENGTH else f"{error[: MAX_KIND_LENGTH - 1]}…"


def count_statuses(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count documents by what the console shows, the most frequent first."""
    return _counted(Counter(str(row.display_status or row.indexing_status) for row in rows))


def count_errors(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count what is not found by its kind, the most frequent first."""
    kinds = Counter[str]()
    for row in rows:
        if row.indexing_status is dify_kb.IndexingStatus.ERROR:
            kinds[error_kind(row.error or "")] += 1
        elif row.indexing_status is dify_kb.IndexingStatus.COMPLETED and not row.word_count:
            kinds[NOTHING_INDEXED] += 1
    return _counted(kinds)


def find_stuck_documents(
    rows: Sequence[Document],
    changed: Mapping[str, datetime],
    now: datetime,
    patience: timedelta,
) -> Sequence[StuckDocument]:
    """Tell which documents do not get on, the longest first.

    One that is being indexed, or paused, and did not change for so long; one that waits for so
    long although a younger one is done, or nothing is being indexed at all. A long queue that
    moves is not stuck.

    Args:
        changed: when each document that is not final last changed, where that is known; else
            its creation counts.
    """
    done = [row.created_at for row in rows if row.indexing_status.is_final]
    youngest = max(done, default=None)
    stuck_document = {
        row.id: changed.get(row.id, row.created_at)
        for row in rows
        if not row.indexing_status.is_final
        and now - changed.get(row.id, row.created_at) >= patience
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
