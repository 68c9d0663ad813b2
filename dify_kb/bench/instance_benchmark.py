"""Measure a server part by part, in temporary datasets."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
from attrs import define, field

from dify_kb.client import AsyncClient
from dify_kb.config import Retry, Timeout
from dify_kb.errors import (
    ConfigError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
    QuotaExceededError,
    UnauthorizedError,
)
from dify_kb.models import UNSET, Dataset, ModelRef, ModelType
from dify_kb.transport.clock import loop_time

from .benchmark_plan import BenchmarkPlan, SearchPlan, Technique, UploadPlan
from .benchmark_progress import OnProgress, ProgressStep, RequestCounter
from .concurrency_sweep import ConcurrencySweep
from .corpus import Sample, generate_html_page, queries_for_samples
from .indexing_benchmark import IndexingBenchmark
from .metrics import Latency, Spread
from .results import (
    Environment,
    IndexingResult,
    InstanceReport,
    ListPageLatency,
    SearchResult,
    UploadResult,
    describe_environment,
)
from .search_methods import SearchFactory, list_search_methods
from .temporary_dataset import list_models, temporary_dataset

NO_RETRIES = Retry(read_attempts=1, idempotent_attempts=1, write_attempts=1, throttled_attempts=1)
"""No retries: every failure is counted."""

LONG_TIMEOUT = Timeout(connect=5.0, read=15.0, answer=30.0)

PING_COUNT = 10

QUERY_COUNT = 200

FATAL_ERRORS = (UnauthorizedError, ForbiddenError, QuotaExceededError, ConfigError, NotFoundError)
"""Errors that end the run; others end one part of it."""


PAGE_SIZE = 100
REPEATS = 5
GROWTH = 2
"""The list is measured again when the dataset has grown by this factor."""


@define
class ListLatency:
    """Latency of the list of a growing dataset."""

    client: AsyncClient
    dataset: Dataset
    _results: list[ListPageLatency] = field(factory=list, init=False)
    _next_size: int = field(default=PAGE_SIZE, init=False)

    async def measure_if_grown(self, documents: int) -> None:
        """Measure if the dataset has grown enough since the last time. Ten requests."""
        if documents < self._next_size:
            return
        self._next_size = GROWTH * documents
        last = max(1, -(-documents // PAGE_SIZE))
        self._results.append(
            ListPageLatency(
                documents=documents,
                first=await self._time_page(1),
                last=await self._time_page(last),
            )
        )

    def results(self) -> Sequence[ListPageLatency]:
        """Return the results so far."""
        return list(self._results)

    async def _time_page(self, number: int) -> Spread:
        times: list[float] = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            await self.client.documents.list(self.dataset, page=number, limit=PAGE_SIZE)
            times.append(time.perf_counter() - began)
        return Spread.from_values(times)


@define(kw_only=True)
class InstanceBenchmark:
    """A benchmark of a server, through an open client that allows the concurrency of the plan.

    Temporary datasets are created and always deleted; only a killed process leaves one.
    """

    client: AsyncClient
    plan: BenchmarkPlan
    samples: Sequence[Sample]
    """The documents that are indexed and searched."""

    counter: RequestCounter
    """The counter whose `record` is the `on_event` of the client."""

    on_progress: OnProgress
    poll_interval: float = 0.5
    """Seconds between two polls of documents that are being indexed: the accuracy of the results,
    for the pages of the list per poll."""

    technique: Technique | None = None
    """None is high_quality if the workspace has an embedding model, else economy."""

    _uploads: list[UploadResult] = field(factory=list, init=False)
    _searches: list[SearchResult] = field(factory=list, init=False)
    _indexed: IndexingResult | None = field(default=None, init=False)
    _listed: Sequence[ListPageLatency] = field(factory=list, init=False)
    _models: Sequence[str] = field(default=(), init=False)
    _notes: list[str] = field(factory=list, init=False)
    _error: KnowledgeError | None = field(default=None, init=False)
    """The first error, raised if no upload succeeds."""

    _documents: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _ends: float = field(default=0.0, init=False)

    async def run(self) -> InstanceReport:
        """Measure all parts of the plan, within its time limit.

        Raises:
            KnowledgeError: the key is not allowed to, the server is unreachable, no upload
                succeeded, or a temporary dataset could not be deleted.
        """
        self._began = loop_time()
        self._ends = self._began + self.plan.seconds
        where = await self._describe_environment()
        embedding, rerank = await self._choose_models()
        technique = "high_quality" if embedding else "economy"
        self._models = [f"{one.provider}:{one.model}" for one in (embedding, rerank) if one]
        async with temporary_dataset(self.client, technique, embedding or UNSET) as dataset:
            await self._run_part("indexing", partial(self._measure_indexing, dataset))
            factories = list_search_methods(embedding=embedding, rerank=rerank)
            await self._run_part("retrieval", partial(self._measure_searches, dataset, factories))
        # Last, since indexing these uploads would delay everything else; and without embeddings,
        # which cost money and are not part of an upload.
        async with temporary_dataset(self.client, "economy") as dataset:
            listing = ListLatency(self._client_without_retries(), dataset)
            for upload in self.plan.uploads:
                await self._run_part(
                    "upload", partial(self._measure_uploads, dataset, upload, listing)
                )
            self._listed = listing.results()
            self._report_progress("cleanup", "deleting the datasets")
        if self._error and not any(level.latency for row in self._uploads for level in row.levels):
            raise self._error
        return self._build_report(where)

    async def _describe_environment(self) -> Environment:
        self._report_progress("start", "querying the server")
        await self.client.datasets.list(limit=1)
        client, times = self._client_without_retries(), list[float]()
        for _ in range(PING_COUNT):
            began = time.perf_counter()
            await client.datasets.list(limit=1)
            times.append(time.perf_counter() - began)
        return describe_environment(self.client, Latency.from_seconds(times))

    async def _choose_models(self) -> tuple[ModelRef | None, ModelRef | None]:
        if self.technique == "economy":
            return None, None
        embeddings = await list_models(self.client, ModelType.TEXT_EMBEDDING)
        if not embeddings:
            if self.technique == "high_quality":
                raise ConfigError(
                    "The workspace has no embedding model; high_quality indexing requires one.",
                    hint="Add one in the console, or use `--technique economy`.",
                )
            return None, None
        reranks = await list_models(self.client, ModelType.RERANK)
        return embeddings[0], next(iter(reranks), None)

    async def _run_part(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run one part. An error that does not concern the whole run ends this part only."""
        try:
            with anyio.CancelScope(deadline=self._ends) as scope:
                await work()
        except FATAL_ERRORS:
            raise
        except KnowledgeError as error:
            self._notes.append(f"{name}: {error.summary}")
            self._error = self._error or error
            return
        if scope.cancelled_caught:
            self._notes.append(f"{name}: time limit of the run reached.")

    async def _measure_indexing(self, dataset: Dataset) -> None:
        indexing = IndexingBenchmark(
            client=self._client_without_retries(),
            dataset=dataset,
            samples=self.samples,
            timeout=self.plan.indexing_timeout,
            poll_interval=self.poll_interval,
            on_progress=lambda ended: self._report_progress(
                "indexing", f"{ended} of {len(self.samples)} documents"
            ),
        )
        self._report_progress("indexing", f"uploading {len(self.samples)} documents")
        try:
            await indexing.run()
        finally:
            self._indexed = indexing.summarize()
            self._documents += self._indexed.documents
        if self._indexed.unfinished:
            self._notes.append(
                f"indexing: {self._indexed.unfinished} of {self._indexed.documents} documents"
                f" unfinished after {self.plan.indexing_timeout:g} s."
            )

    async def _measure_searches(
        self, dataset: Dataset, factories: Mapping[str, SearchFactory]
    ) -> None:
        plan = self.plan.search
        queries = itertools.cycle(queries_for_samples(self.samples, QUERY_COUNT))
        for name, method in factories.items():
            for top_k in plan.top_k:
                await self._measure_search(dataset, name, method, top_k, queries, plan)

    async def _measure_search(
        self,
        dataset: Dataset,
        name: str,
        method: SearchFactory,
        top_k: int,
        queries: itertools.cycle[str],
        plan: SearchPlan,
    ) -> None:
        model, client = method(top_k), self._client_without_retries()
        sweep = ConcurrencySweep(
            lambda: client.datasets.retrieve(dataset, next(queries), retrieval_model=model),
            plan.concurrencies,
            plan.rounds,
            plan.seconds,
            plan.max_searches,
            lambda number: self._report_progress(
                "retrieval", f"{name}, top {top_k}, concurrency {number}"
            ),
        )
        try:
            await sweep.run()
        finally:
            if levels := sweep.levels():
                self._searches.append(
                    SearchResult(
                        method=name, top_k=top_k, levels=levels, knee=sweep.find_saturation()
                    )
                )

    async def _measure_uploads(
        self, dataset: Dataset, upload: UploadPlan, listing: ListLatency
    ) -> None:
        data, client = (
            generate_html_page(upload.size),
            self._client_without_retries(),
        )

        async def create() -> None:
            self._documents += 1
            name = f"{upload.size}-{self._documents:06}.html"
            await client.documents.create_by_file(dataset, data, name=name)
            stored.append(name)

        async def measure_list() -> None:
            await listing.measure_if_grown(len(stored))

        stored: list[str] = []
        sweep = ConcurrencySweep(
            create,
            upload.concurrencies,
            upload.rounds,
            upload.seconds,
            upload.max_documents,
            lambda number: self._report_progress(
                "upload", f"{upload.size:,} bytes, concurrency {number}"
            ),
            measure_list if upload.size == min(one.size for one in self.plan.uploads) else None,
        )
        try:
            await sweep.run()
        finally:
            self._error = self._error or sweep.first_error()
            if levels := sweep.levels():
                self._uploads.append(
                    UploadResult(size=upload.size, levels=levels, knee=sweep.find_saturation())
                )

    def _client_without_retries(self) -> AsyncClient:
        return self.client.with_options(timeout=LONG_TIMEOUT, retry=NO_RETRIES)

    def _report_progress(self, phase: str, what: str) -> None:
        part = (loop_time() - self._began) / self.plan.seconds
        self.on_progress(ProgressStep(phase=phase, description=what, completed_part=min(1.0, part)))

    def _build_report(self, where: Environment) -> InstanceReport:
        return InstanceReport(
            where=where,
            plan=self.plan.name,
            load=self.plan.estimate_load(),
            models=self._models,
            uploads=sorted(self._uploads, key=lambda row: row.size),
            indexed=self._indexed,
            searches=self._searches,
            listed=self._listed,
            troubles=self.counter.summarize_errors(),
            notes=self._notes,
            requests=self.counter.requests,
            documents=self._documents,
            seconds=loop_time() - self._began,
        )
