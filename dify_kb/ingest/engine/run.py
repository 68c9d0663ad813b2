"""Run a load: create its parts, start its tasks, and feed planned files until all have ended."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.journal import Journal
from dify_kb.ingest.load_options import LoadOptions, ServerAccess
from dify_kb.ingest.metadata.collect_metadata import MetadataCollector
from dify_kb.ingest.pacing.indexing_backlog import IndexingBacklog
from dify_kb.ingest.planning.document_lookup import DocumentLookup
from dify_kb.ingest.planning.file_plan import PlannedFile
from dify_kb.ingest.planning.planner import ListingError, Planner
from dify_kb.ingest.report import ItemResult, StopReason
from dify_kb.ingest.sources.source_reader import SourceReader
from dify_kb.models import UNSET, Dataset, ProcessRule, Unset
from dify_kb.resources.metadata_assignment import MetadataAssignment

from .dry_run import DryRun
from .file_lifecycle import FileLifecycle
from .finish_documents import MetadataAssigner, ReplacementFinisher
from .followed_documents import FollowedDocuments
from .indexing_observer import IndexingObserver
from .ledger import AttemptCounter, Ledger, RunStop
from .pending_uploads import PendingUploads
from .reconcile import Reconciler
from .stall_detector import StallDetector, format_duration
from .upload_workers import UploadWorkers
from .uploader import Uploader
from .watch_indexing import IndexingWatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

PROGRESS_INTERVAL = 1.0
"""Seconds between progress events while a server does not respond."""


@define(kw_only=True)
class LoadRun:
    """A load of a source into a dataset."""

    server: ServerAccess
    dataset: Dataset
    source: SourceReader
    journal: Journal
    options: LoadOptions
    assignment: MetadataAssignment
    requests: AttemptCounter
    metadata: MetadataCollector = field(factory=MetadataCollector)
    foreign_ids: Collection[str] | None = None
    """The documents of other clients; if given, none of theirs is replaced."""

    ledger: Ledger = field(init=False)
    files: FileLifecycle = field(init=False)
    _lookup: DocumentLookup = field(init=False)

    def __attrs_post_init__(self) -> None:
        times, followed = self.server.policy.load_timing, FollowedDocuments()
        self._lookup = DocumentLookup(
            self.server.documents, self.dataset.id, self.foreign_ids or ()
        )
        stopping = RunStop()
        self.ledger = Ledger(
            self.journal, self.options, self.server.breaker, stopping, self.requests
        )
        self.files = FileLifecycle(
            ledger=self.ledger,
            stopping=stopping,
            times=times,
            follows=self.options.follows,
            swaps=self.options.replace == "swap",
            backlog=IndexingBacklog(self.options.max_unindexed, self.options.follows),
            followed=followed,
            pending=PendingUploads(times, followed.activity),
        )

    async def execute_plan(self, planned: Sequence[PlannedFile | ItemResult]) -> None:
        """Process planned files until every one has an outcome."""
        async with self._tasks():
            for decided in planned:
                await self._start(decided)
            self.files.finish_scan()
            await self.files.wait_all_ended()

    async def execute(self) -> None:
        """Process the source until every file has an outcome.

        Raises:
            KnowledgeError: the documents of the dataset could not be listed at the beginning.
        """
        planner = self._planner()
        async with self._tasks():
            try:
                await self.files.stopping.wait_unless_requested(planner.prepare())
                await self._feed(planner)
            except ListingError as failed:
                self.files.stop_for_error(failed.error)
            self.files.finish_scan()
            await self.files.wait_all_ended()

    async def _feed(self, planner: Planner) -> None:
        """Start all files of the source; stop reading a generator once the run stops."""
        dry_run = DryRun(self._lookup, self.options) if self.options.dry_run else None
        batches, end = planner.batches(), list[PlannedFile | ItemResult]()
        while True:
            reading: Awaitable[Sequence[PlannedFile | ItemResult] | None] = anext(batches, end)
            if not self.source.counted:
                reading = self.files.stopping.wait_unless_requested(reading)
            if (batch := await reading) is None or batch is end:
                self.ledger.is_cut_off = batch is None
                return
            for decided in batch:
                if isinstance(decided, PlannedFile) and dry_run is not None:
                    await self._start(await dry_run.predict(decided))
                else:
                    await self._start(decided)

    async def _start(self, decided: PlannedFile | ItemResult) -> None:
        self.ledger.found += 1
        if isinstance(decided, PlannedFile):
            await self.files.start(decided)
            return
        if self.options.pause is not None:
            await self.options.pause()
        self.files.record_result(decided)

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        """Run the tasks of the load while the context is active."""
        workers = self._workers()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_when_given_up)
            tasks.start_soon(self._report_health)
            tasks.start_soon(self._count_ahead)
            tasks.start_soon(self._stop_on_error, self._watcher().run)
            tasks.start_soon(self._stop_on_error, self._reconciler().run)
            tasks.start_soon(self._stop_on_error, self._metadata_assigner().run)
            tasks.start_soon(self._stop_on_error, self._replacement_finisher().run)
            if self.options.deadline is not None:
                tasks.start_soon(self._stop_at_deadline, self.options.deadline)
            tasks.start_soon(workers.finish_sends)
            tasks.start_soon(workers.run, tasks)
            yield
            tasks.cancel_scope.cancel()

    async def _stop_when_given_up(self) -> None:
        failure = await self.server.breaker.run()
        self.files.stop(failure.reason, failure.message, abandon=True)

    async def _report_health(self) -> None:
        """Report progress when uploads pause or resume, and while nothing else happens."""
        while True:
            with anyio.move_on_after(PROGRESS_INTERVAL):
                await self.server.breaker.wait_changed()
            self.ledger.report_progress()

    async def _count_ahead(self) -> None:
        """Count the files of the source in a thread during the scan, to show a total early."""
        count, ended = self.source.totals, False
        if count is None or self.options.on_event is None:
            return
        try:
            self.ledger.totals = await anyio.to_thread.run_sync(
                count, self.options.rules, lambda: ended, abandon_on_cancel=True
            )
        except KnowledgeError:
            return  # the scan raises it, too
        finally:
            ended = True
        self.ledger.report_progress()

    async def _stop_at_deadline(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        message = f"Deadline reached ({format_duration(seconds)})"
        self.files.stop(StopReason.DEADLINE, message, abandon=True)

    async def _stop_on_error(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task; stop the run if the task raises an error."""
        try:
            await task()
        except KnowledgeError as error:
            self.files.stop_for_error(error)

    def _planner(self) -> Planner:
        return Planner(
            journal=self.journal,
            documents=self.server.documents,
            dataset=self.dataset,
            source=self.source,
            rules=self.options.rules,
            options=self.options.plan_options,
            metadata=self.metadata,
            checksum=self.options.checksum,
            breaker=self.server.breaker,
            added=self.files.followed.activity.added,
        )

    def _workers(self) -> UploadWorkers:
        server, options = self.server, self.options
        uploader = Uploader(
            documents=server.uploads,
            journal=self.journal,
            dataset=self.dataset,
            process_rule=options.process_rule or _first_rule(self.dataset),
            doc_form=options.doc_form,
            fingerprint=options.chunking_fingerprint,
            swaps=self.files.swaps,
            protects_others=self.foreign_ids is not None,
            deleted_characters=self.ledger.deleted_characters,
        )
        return UploadWorkers(
            uploader=uploader,
            admission=server.admission,
            files=self.files,
            times=server.policy.load_timing,
            pause=options.pause,
        )

    def _watcher(self) -> IndexingWatcher:
        server = self.server
        stalls = StallDetector(
            server.documents,
            server.datasets,
            self.dataset.id,
            self.files.followed,
            self.options.stall_after,
            2 * server.policy.load_timing.revisit_interval,
        )
        return IndexingWatcher(
            server.documents,
            self.dataset.id,
            server.policy.polling,
            server.policy.load_timing,
            self._lookup,
            server.breaker,
            stalls,
            IndexingObserver(server.policy.load_timing, self.files),
            self.files,
        )

    def _reconciler(self) -> Reconciler:
        return Reconciler(
            self._lookup,
            self.server.documents,
            self.dataset.id,
            self.server.policy.load_timing,
            self.server.breaker,
            self.files,
            self.options.on_existing if self.foreign_ids is None else "skip",
            self.options.overwrite_archived,
            self.options.retry_failed,
            self.options.stall_after,
        )

    def _metadata_assigner(self) -> MetadataAssigner:
        return MetadataAssigner(self.assignment, self.server.breaker, self.files)

    def _replacement_finisher(self) -> ReplacementFinisher:
        server, waits = self.server, self.server.policy.load_timing.lookup_intervals
        return ReplacementFinisher(
            server.documents, self.dataset.id, self._lookup, server.breaker, self.files, waits
        )


def _first_rule(dataset: Dataset) -> ProcessRule | Unset:
    """Return the automatic rule for an empty dataset, which requires a rule; otherwise UNSET."""
    return UNSET if dataset.document_count else ProcessRule.automatic()
