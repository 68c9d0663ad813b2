from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer
from attrs import define, field
from rich.console import Group
from rich.live import Live
from rich.text import Text

import dify_kb
from dify_kb.arguments import parse_duration
from dify_kb.config import Retry, Timeout
from dify_kb.errors import (
    ApiError,
    BadRequestError,
    ConfigError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
)
from dify_kb.ingest.progress import format_duration
from dify_kb.wire.version_bugs import is_older

from . import benchmark_output, completion, exit_codes, name_lookup, option_types, output
from .datasets import iterate_datasets
from .run_command import CommandContext
from .stats import DatasetQueue, QueueSample, count_errors

if TYPE_CHECKING:
    from dify_kb import AsyncClient, DisplayStatusName, Document, Page

STATUS_FILTER_SINCE = "1.11"
"""The first version that filters documents by status; others ignore the filter (measured)."""

MAX_ERROR_PAGES = 5
"""Pages of 100 failed documents, newest first, whose errors are read when their number changed."""

MAX_LISTED_ERRORS = 5
"""Kinds of errors shown per dataset."""

MAX_TIMEOUT = 30.0
"""Seconds after which a request counts as unanswered; shorter with a shorter interval."""


def monitor(
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
    interval: Annotated[
        str, typer.Option(metavar="DURATION", help="Time between two samples; at least 1s.")
    ] = "10s",
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of samples; default: until Ctrl-C."),
    ] = None,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replace FILE after each sample by metrics in the text format of Prometheus.",
            parser=option_types.parse_path,
        ),
    ] = None,
) -> None:
    """Follow queue, indexing speed and errors over time.

    Continues when the server does not respond. Costs six requests per dataset and sample, and one
    per 100 failed documents (at most five) when their number changed; servers before 1.11, which
    cannot count by status, need one per 100 documents instead.
    """
    command: CommandContext = context.obj
    seconds = parse_duration(interval, "--interval")
    if seconds < 1:
        raise ConfigError(f"Invalid --interval: {interval!r}.", hint="Use 1s or more.")
    benchmark_output.check_writable((metrics_file,))

    async def main() -> int:
        async with command.create_client() as client:
            if dataset:
                found = [await name_lookup.find_dataset(client, name) for name in dataset]
            else:
                found = [row async for row in iterate_datasets(client, command)]
            if not found:
                output.note("No datasets.")
                return 0
            queues = {row.id: DatasetQueue(id=row.id, name=row.name) for row in found}
            watch = QueueMonitor(client=client, queues=list(queues.values()), interval=seconds)
            file = None if metrics_file is None else benchmark_output.MetricsFile(metrics_file)
            with open_display(watch, json=command.json) as show:

                def report() -> None:
                    show()
                    if file is not None:
                        file.write(format_metrics(watch))

                await watch.run(report, samples)
            return exit_codes.GENERAL_ERROR if watch.failure else 0

    command.run(main)


@define(kw_only=True)
class QueueMonitor:
    """A loop that samples datasets, and survives outages of the server."""

    client: AsyncClient
    queues: Sequence[DatasetQueue]
    interval: float
    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    failure: str = ""
    """Why the server did not respond to the last sample."""

    answered_at: float = field(init=False)
    """Time of the last complete sample, or of the start."""

    def __attrs_post_init__(self) -> None:
        self.answered_at = self.now()
        # A sample that fails is followed by the next one; retries would delay it.
        once = Retry(read_attempts=1, throttled_attempts=1, server_error_attempts=1)
        seconds = min(MAX_TIMEOUT, max(5.0, self.interval))
        self.client = self.client.with_options(
            retry=once, timeout=Timeout(connect=5.0, read=seconds)
        )

    @property
    def silence(self) -> float:
        """Seconds without an answer; 0 while the server responds in time."""
        seconds = self.now() - self.answered_at
        return seconds if self.failure or seconds > self.interval + 3 else 0.0

    async def run(self, report: Callable[[], None], samples: int | None) -> None:
        """Sample and report until cancelled, or `samples` times."""
        count = 0
        while True:
            started = self.now()
            await self.sample()
            report()
            count += 1
            if count == samples:
                return
            await self.sleep(max(0.0, started + self.interval - self.now()))

    async def sample(self) -> None:
        """Sample all datasets; stop at the first failure that concerns all of them."""
        for queue in self.queues:
            try:
                queue.add(await self._sample_dataset(queue))
            except (NotFoundError, ForbiddenError, BadRequestError) as error:
                queue.failure = error.summary
            except KnowledgeError as error:
                self.failure = error.summary
                return
        self.failure, self.answered_at = "", self.now()

    async def _sample_dataset(self, queue: DatasetQueue) -> QueueSample:
        counted = await self.client.documents.list(queue.id, limit=1)
        if is_older(self.client.server_version, STATUS_FILTER_SINCE):
            return await self._count_rows(queue)
        waiting = await self._list(queue, "queuing")
        indexing = await self._list(queue, "indexing")
        failed = await self._list(queue, "error")
        if 0 < counted.total == waiting.total == indexing.total == failed.total:
            return await self._count_rows(queue)  # the filter is ignored
        latest = queue.latest
        return QueueSample(
            time=self.now(),
            documents=counted.total,
            waiting=waiting.total,
            indexing=indexing.total,
            failed=failed.total,
            oldest_waiting=await self._find_oldest(queue, waiting.total),
            errors=latest.errors
            if latest is not None and latest.failed == failed.total
            else await self._read_errors(queue, failed.total),
        )

    async def _count_rows(self, queue: DatasetQueue) -> QueueSample:
        rows = [row async for row in self.client.documents.iter(queue.id)]
        waiting = [row for row in rows if row.indexing_status is dify_kb.IndexingStatus.WAITING]
        ended = sum(row.indexing_status.is_final for row in rows)
        return QueueSample(
            time=self.now(),
            documents=len(rows),
            waiting=len(waiting),
            indexing=len(rows) - len(waiting) - ended,
            failed=sum(row.indexing_status is dify_kb.IndexingStatus.ERROR for row in rows),
            oldest_waiting=min(
                (row.created_at.timestamp() for row in waiting if row.created_at), default=None
            ),
            errors=count_errors(rows),
        )

    async def _list(
        self, queue: DatasetQueue, status: DisplayStatusName, page: int = 1, limit: int = 1
    ) -> Page[Document]:
        return await self.client.documents.list(queue.id, status=status, page=page, limit=limit)

    async def _find_oldest(self, queue: DatasetQueue, waiting: int) -> float | None:
        """Return when the last row of the queue, the oldest, was created or queued again."""
        if not waiting:
            return None
        page = await self._list(queue, "queuing", page=waiting)
        for row in page.data:
            try:
                detail = await self.client.documents.get(queue.id, row.id, metadata="without")
            except ApiError:
                return row.created_at.timestamp() if row.created_at else None
            changed = detail.updated_at or row.created_at
            return changed.timestamp() if changed else None
        return None  # its indexing began meanwhile

    async def _read_errors(self, queue: DatasetQueue, failed: int) -> Mapping[str, int]:
        errors = Counter[str]()
        for page in range(1, min(MAX_ERROR_PAGES, -(-failed // 100)) + 1):
            errors.update(
                count_errors((await self._list(queue, "error", page=page, limit=100)).data)
            )
        return dict(errors.most_common())


@contextmanager
def open_display(watch: QueueMonitor, *, json: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that shows the latest samples: as JSON, as a live table, or as lines.

    The table is redrawn every second, also while a request has no response.
    """
    if json:
        yield lambda: print_json_samples(watch)
    elif output.out.is_terminal:
        with Live(
            get_renderable=lambda: Group(*draw_table(watch)),
            console=output.out,
            refresh_per_second=1,
        ) as live:
            yield live.refresh
    else:
        yield lambda: print_lines(watch)


def print_json_samples(watch: QueueMonitor) -> None:
    """Print the latest sample of each dataset as a line of JSON."""
    for queue in watch.queues:
        row = {
            "type": "sample",
            "id": queue.id,
            "name": queue.name,
            **({} if queue.latest is None else output.to_fields(queue.latest)),
            "time": watch.now(),
            "per_minute": queue.per_minute,
            "no_answer": watch.silence,
            "error": watch.failure or queue.failure or None,
        }
        output.print_json(row)


def print_lines(watch: QueueMonitor) -> None:
    """Print the latest sample of each dataset in a line, or that there is no answer."""
    clock = f"{datetime.fromtimestamp(watch.now(), UTC).astimezone():%H:%M:%S}"
    for line in [describe_silence(watch)] if watch.silence else map(describe_queue, watch.queues):
        output.write_line(f"{clock}  {line}")


def describe_silence(watch: QueueMonitor) -> str:
    """Return since when the server does not respond, and why."""
    reason = f": {output.escape(watch.failure)}" if watch.failure else ""
    return f"no answer for {format_duration(watch.silence)}{reason}"


def describe_queue(queue: DatasetQueue) -> str:
    """Return the latest sample in one line."""
    sample, name = queue.latest, output.escape(queue.name)
    if queue.failure or sample is None:
        return f"{name}: {output.escape(queue.failure) or 'not counted yet'}"
    age = f" (oldest {_describe_age(sample)})" if sample.oldest_waiting else ""
    pace = [] if queue.per_minute is None else [f"{queue.per_minute:,.1f}/min"]
    parts = [
        f"{sample.documents:,} documents",
        f"{sample.waiting:,} waiting{age}",
        f"{sample.indexing:,} indexing",
        f"{sample.failed:,} failed",
        *pace,
        *_list_errors(sample),
    ]
    return f"{name}: {', '.join(parts)}"


def draw_table(watch: QueueMonitor) -> Iterator[Text]:
    """Yield the lines of the table, errors and silence; each fits the terminal."""
    rows = [
        [output.format_cell(cell) for cell in (queue.name, *_count_cells(queue), queue.per_minute)]
        for queue in watch.queues
    ]
    columns = ("dataset", "documents", "waiting", "indexing", "failed", "oldest", "per min")
    lines = [(line.text, line.style) for line in output.table_format().format_table(columns, rows)]
    for queue in watch.queues:
        errors = [output.escape(queue.failure)] if queue.failure else _list_errors(queue.latest)
        lines += [(f"{output.escape(queue.name)}: {error}", "red") for error in errors]
    if watch.silence:
        lines.append((describe_silence(watch), "yellow"))
    for text, style in lines:
        yield Text(text, style, no_wrap=True, overflow="ellipsis")


def _count_cells(queue: DatasetQueue) -> Sequence[object]:
    row = queue.latest
    if row is None:
        return [None] * 5
    return row.documents, row.waiting, row.indexing, row.failed, _describe_age(row)


def _list_errors(sample: QueueSample | None) -> list[str]:
    kinds = list(sample.errors.items())[:MAX_LISTED_ERRORS] if sample else []
    return [f"{count:,} x {output.escape(kind)}" for kind, count in kinds]


def _describe_age(sample: QueueSample) -> str | None:
    if sample.oldest_waiting is None:
        return None
    return format_duration(max(0.0, sample.time - sample.oldest_waiting))


def format_metrics(watch: QueueMonitor) -> str:
    """Return the metrics in the text format of Prometheus."""
    families: dict[str, benchmark_output.MetricFamily] = {
        "up": ("Whether the server responded to the last sample.", [({}, not watch.failure)]),
        "last_answer_timestamp_seconds": (
            "Time of the last complete sample, or of the start.",
            [({}, watch.answered_at)],
        ),
        "documents": ("Documents by status.", []),
        "failed_documents": ("Failed documents by kind of error, of the newest 500.", []),
        "oldest_waiting_seconds": ("Age of the document that waits longest; 0 without one.", []),
        "ended_documents_per_minute": ("Documents indexed or failed, over five minutes.", []),
    }
    values = {name: rows for name, (_, rows) in families.items()}
    for queue in watch.queues:
        sample = queue.latest
        if sample is None:
            continue
        labels = {"dataset": queue.name, "dataset_id": queue.id}
        for status, count in (
            ("waiting", sample.waiting),
            ("indexing", sample.indexing),
            ("failed", sample.failed),
            ("completed", sample.ended - sample.failed),
        ):
            values["documents"].append(({**labels, "status": status}, count))
        for kind, count in sample.errors.items():
            values["failed_documents"].append(({**labels, "kind": kind}, count))
        age = max(0.0, sample.time - (sample.oldest_waiting or sample.time))
        values["oldest_waiting_seconds"].append((labels, age))
        if queue.per_minute is not None:
            values["ended_documents_per_minute"].append((labels, queue.per_minute))
    return benchmark_output.format_metrics("dify_kb", families)
