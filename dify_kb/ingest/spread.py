"""Load a source into several datasets: choose the dataset of each file, and load them in turn.

A file stays in the dataset that contains it, as its journal or its document's name tells. New files
are distributed by rendezvous hashing, so that the choice depends on nothing but key and datasets.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs
from attrs import define, field

from dify_kb.errors import ConfigError, KnowledgeError, LoadError
from dify_kb.models import Dataset
from dify_kb.resources import Datasets, Documents
from dify_kb.transport import Sender

from .engine.file_lifecycle import NOT_SENT
from .error_classification import stop_message, stop_reason
from .journal import JournalState, read_journal
from .load import (
    create_admission,
    default_journal_path,
    load_reader,
    no_files_message,
    show_progress,
)
from .load_options import LoadOptions
from .pacing.admission import Admission
from .progress import Progress
from .report import ItemResult, LoadReport, Outcome, StopReason, refused_result
from .sources.found_file import FoundFile
from .sources.items import NamedSource, Source
from .sources.source_reader import SourceReader, create_source_reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path

    from .progress import LoadEvent
    from .sources.scan import ScanRules
    from .sources.source_reader import CheckedFile

_REPORT_SUMS = (
    *(outcome.value for outcome in Outcome),
    *("found", "bytes", "requests", "retries", "metadata_set"),
)
_PROGRESS_SUMS = ("found", "to_send", "accepted", "ended", "failed", "bytes", "bytes_done")


def choose_dataset(key: str, dataset_ids: Collection[str]) -> str:
    """Return the dataset of a new file by rendezvous hashing.

    With one more dataset, a key keeps its dataset unless the new one is chosen.
    """

    def weight(dataset_id: str) -> bytes:
        text = f"{dataset_id}\0{key}".encode(errors="surrogatepass")
        return hashlib.blake2b(text, digest_size=8).digest()

    return max(dataset_ids, key=weight)


@define
class Placement:
    """The dataset of each file. Needs about 100 bytes of memory per file.

    Args:
        counts: the number of documents of each dataset.
        limit: documents per dataset above which new files are placed in others; above it in all,
            new files are placed in any.
    """

    counts: dict[str, int]
    limit: int | None = None
    _by_key: dict[int, str] = field(factory=dict)
    _by_name: dict[int, str] = field(factory=dict)

    def record_key(self, key: str, dataset_id: str) -> None:
        """Record that a dataset contains the file with this key."""
        self._by_key.setdefault(hash(key), dataset_id)

    def record_name(self, name: str, dataset_id: str) -> None:
        """Record that a dataset contains a document with this name."""
        self._by_name.setdefault(hash(name), dataset_id)

    def place(self, file: CheckedFile) -> str:
        """Return the dataset of a file, the same each time."""
        key = hash(file.key)
        if key not in self._by_key:
            known = self._by_name.get(hash(file.name))
            self._by_key[key] = known or self._choose(file.key)
            if known is None and isinstance(file, FoundFile):
                self.counts[self._by_key[key]] += 1
        return self._by_key[key]

    def _choose(self, key: str) -> str:
        limit = self.limit
        free = [one for one, count in self.counts.items() if limit is None or count < limit]
        return choose_dataset(key, free or self.counts)


async def load_spread(
    sender: Sender,
    identity: str | None,
    datasets: Sequence[Dataset | str],
    source: Source,
    options: LoadOptions,
) -> LoadReport:
    """Load a source into several datasets, one after the other, and return the sum of the reports.

    Args:
        identity: identifies the server in journals; None for an embedded server in memory.

    Raises:
        ConfigError: as `load`; or no dataset or a journal is given, or the source can be read only
            once.
        KnowledgeError: as `load`.
    """
    ids = [*dict.fromkeys(one.id if isinstance(one, Dataset) else one for one in datasets)]
    _check_arguments(ids, source, options)
    with show_progress(sender, options) as (watched, shown):
        reader = await create_source_reader(source)
        admission = create_admission(watched, ids[0], shown)
        run = _SpreadRun(
            sender=watched,
            identity=identity,
            dataset_ids=ids,
            source=source,
            reader=reader,
            options=shown,
            admission=admission,
        )
        try:
            await anyio.to_thread.run_sync(reader.prepare, abandon_on_cancel=True)
            return await run.execute()
        finally:
            admission.close()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(reader.close)


def _check_arguments(ids: Sequence[str], source: Source, options: LoadOptions) -> None:
    if not ids:
        raise ConfigError("No dataset to load into.", hint="Pass at least one dataset.")
    if options.journal is not None:
        raise ConfigError(
            "Several datasets cannot share a journal.",
            hint="Omit journal= (--journal): each dataset has its own.",
        )
    elements = source.elements if isinstance(source, NamedSource) else source
    if isinstance(elements, Iterator | AsyncIterable):
        raise ConfigError(
            "A generator cannot be loaded into several datasets: it can be read only once.",
            hint="Pass a folder or a list.",
        )


@define(kw_only=True)
class _SpreadRun:
    """A load into several datasets."""

    sender: Sender
    identity: str | None
    dataset_ids: Sequence[str]
    source: Source
    reader: SourceReader
    options: LoadOptions
    admission: Admission
    reports: list[LoadReport] = field(factory=list)
    _placement: Placement = field(init=False)
    _totals: Mapping[str, int] = field(factory=dict)
    _ended: Counter[str] = field(factory=Counter)
    """The sum of the last progress events of the loads that have ended."""

    _progress: Progress | None = None
    _started: float = field(factory=time.monotonic)

    async def execute(self) -> LoadReport:
        """Place all files, and load each dataset unless an earlier load stopped."""
        self._placement = await self._locate_documents()
        files = size = 0
        async for batch in self._read(self.options.rules):
            for file in batch:
                self._placement.place(file)
                files, size = files + 1, size + file.size
        self._totals = {"total": files, "total_bytes": size}
        for dataset_id in self.dataset_ids:
            if any(report.stopped is not None for report in self.reports):
                self.reports.append(await self._count_pending(dataset_id))
            else:
                self.reports.append(await self._load_into(dataset_id))
            self._ended += Counter(_count_progress(self._progress))
            self._progress = None
        return self._sum_reports()

    async def _locate_documents(self) -> Placement:
        """Find out which files the datasets contain: by their journals, else by listing them."""
        documents, placement = Documents(self.sender), Placement({}, self.options.per_dataset)
        for dataset_id in self.dataset_ids:
            dataset = await Datasets(self.sender).get(dataset_id)
            count = 0
            path = self._find_journal(dataset_id)
            if path is not None:
                count = await anyio.to_thread.run_sync(
                    _read_keys, path, partial(placement.record_key, dataset_id=dataset_id)
                )
            if count != dataset.document_count:
                count = 0
                async for row in documents.iter(dataset):
                    placement.record_name(row.name, dataset_id)
                    count += 1
            placement.counts[dataset_id] = count
        return placement

    def _find_journal(self, dataset_id: str) -> Path | None:
        if self.identity is None or self.reader.identity is None:
            return None
        names = {"server": self.identity, "dataset": dataset_id, "source": self.reader.identity}
        try:
            path = default_journal_path(names)
        except RuntimeError:  # a user without a home
            return None
        return path if path.exists() else None

    async def _load_into(self, dataset_id: str) -> LoadReport:
        """Load the files of a dataset within what the others have left of the limits."""
        options, failed = self.options, sum(report.failed for report in self.reports)
        if options.deadline is not None:
            left = options.deadline - (time.monotonic() - self._started)
            options = attrs.evolve(options, deadline=max(left, 0.0))
        if options.max_failures is not None:
            options = attrs.evolve(options, max_failures=max(options.max_failures - failed, 0))
        if options.on_event is not None:
            options = attrs.evolve(options, on_event=self._report_event)
        reader = attrs.evolve(
            self.reader,
            batches=partial(self._read, dataset_id=dataset_id),
            totals=None,
            prepare=lambda: None,
            close=lambda: None,
        )
        try:
            report = await load_reader(
                self.sender, self.identity, dataset_id, reader, options, self.admission
            )
        except (ConfigError, LoadError):
            raise
        except KnowledgeError as error:
            if not self.reports:
                raise
            report = await self._count_pending(dataset_id)
            return attrs.evolve(
                report, stopped=stop_reason(error), stop_message=stop_message(error)
            )
        if report.stopped is StopReason.NO_FILES:
            return attrs.evolve(report, stopped=None, stop_message=None)
        return report

    async def _read(
        self, rules: ScanRules, *, dataset_id: str | None = None
    ) -> AsyncIterator[Sequence[CheckedFile]]:
        """Yield the files of a dataset, or all; each time anew."""
        reader = self.reader if self.reader.counted else await create_source_reader(self.source)
        async for batch in reader.batches(rules):
            place = self._placement.place
            yield [file for file in batch if dataset_id is None or place(file) == dataset_id]

    async def _count_pending(self, dataset_id: str) -> LoadReport:
        """Return the report of a dataset that is not loaded, as an earlier load stopped."""
        counts, reasons = Counter[Outcome](), Counter[str]()
        async for batch in self._read(self.options.rules, dataset_id=dataset_id):
            for file in batch:
                result = file
                if not isinstance(result, ItemResult):
                    result = refused_result(file.key, Outcome.PENDING, NOT_SENT, size=file.size)
                counts[result.outcome] += 1
                if result.outcome is Outcome.SKIPPED and result.reason:
                    reasons[result.reason] += 1
                if self.options.pause is not None:
                    await self.options.pause()
                if self.options.on_event is not None:
                    self.options.on_event(result)
        numbers: Mapping[str, Any] = {outcome.value: count for outcome, count in counts.items()}
        return LoadReport(found=counts.total(), skipped_reasons=reasons, **numbers)

    def _report_event(self, event: LoadEvent) -> None:
        """Report an event with the progress of all datasets."""
        if self.options.on_event is None:
            return
        if isinstance(event, Progress):
            self._progress = event
            sums = self._ended + Counter(_count_progress(event))
            counts = {name: sums[name] for name in _PROGRESS_SUMS}
            values: Mapping[str, Any] = {**counts, **self._totals}
            event = attrs.evolve(event, **values, eta=None)
        self.options.on_event(event)

    def _sum_reports(self) -> LoadReport:
        reports, seconds = self.reports, time.monotonic() - self._started
        sums: Mapping[str, Any] = {
            name: sum(getattr(report, name) for report in reports) for name in _REPORT_SUMS
        }
        stop = next((report for report in reports if report.stopped is not None), None)
        reasons = Counter[str]()
        for report in reports:
            reasons.update(report.skipped_reasons)
        accepted = sum(report.goodput * report.seconds for report in reports)
        report = LoadReport(
            **sums,
            seconds=seconds,
            goodput=accepted / seconds if seconds else 0.0,
            verified=all(report.verified for report in reports),
            dry_run=self.options.dry_run,
            stopped=None if stop is None else stop.stopped,
            stop_message=None if stop is None else stop.stop_message,
            skipped_reasons=dict(reasons),
            warnings=[*dict.fromkeys(chain.from_iterable(one.warnings for one in reports))],
            _failures=lambda: chain.from_iterable(one.failures() for one in reports),
        )
        if self.reader.identity and not report.found and stop is None:
            return attrs.evolve(
                report, stopped=StopReason.NO_FILES, stop_message=no_files_message(self.reader)
            )
        return report


def _count_progress(event: Progress | None) -> Mapping[str, int]:
    return {name: getattr(event, name) for name in _PROGRESS_SUMS} if event else {}


def _read_keys(path: Path, record: Callable[[str], object]) -> int:
    """Record the keys of a journal; return the number of its documents. Blocking."""
    count = 0
    for row in read_journal.iter_rows(path):
        record(row.key)
        count += row.document_id is not None and row.state is not JournalState.SENDING
    return count
