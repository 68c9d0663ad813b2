"""Asking a base what is known to be in it, in every way that it can be searched."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field, frozen

from dify_kb.bench.benchmark_plan import TOP_KS
from dify_kb.bench.benchmark_progress import OnProgress, ProgressStep, RequestCounter
from dify_kb.bench.metrics import (
    Latency,
    Mean,
    Ranks,
    differ_significantly,
    ndcg,
    recall,
    reciprocal_rank,
)
from dify_kb.bench.results import MissedQuery, QualityReport, QualityRow, describe_environment
from dify_kb.bench.search_methods import COMPARED_VECTOR_WEIGHTS, SearchFactory, list_search_methods
from dify_kb.bench.temporary_dataset import list_models, temporary_dataset
from dify_kb.client import AsyncClient
from dify_kb.errors import BadRequestError, ConfigError, KnowledgeError
from dify_kb.ingest import Item, Source
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    IndexingTechnique,
    ModelRef,
    ModelType,
    ProcessRule,
    Record,
)
from dify_kb.transport.clock import loop_time

from .evaluation_queries import EvaluationQuery

if TYPE_CHECKING:
    from dify_kb.bench.benchmark_plan import Technique

CONCURRENCY = 2
"""Queries at once: a default server is full with two or three requests (measured)."""

MAX_MISSED_SHOWN = 20
"""Queries without an answer that a report lists."""


@frozen(kw_only=True)
class Chunking:
    """A name, and what a load is told."""

    name: str
    rule: ProcessRule
    form: DocForm | None = None


def list_chunkings(sizes: Sequence[int], *, parents: bool) -> Sequence[Chunking]:
    """Name a way to cut for each size, a tenth of it overlapping, as far as 50 characters.

    Args:
        parents: whether paragraphs that are found by their parts are compared as well, which
            needs a high-quality base.

    Raises:
        ConfigError: a size that servers take and then fail to index.
    """
    chunkings = [
        Chunking(
            name=f"{size} characters",
            rule=ProcessRule.custom(max_tokens=size, chunk_overlap=min(50, size // 10)),
        )
        for size in sizes
    ]
    if parents:
        rule = ProcessRule.parent_child()
        chunkings.append(Chunking(name="parent-child", rule=rule, form=DocForm.HIERARCHICAL))
    return chunkings


@define
class _ScoredRow:
    """A row with what it was made of."""

    row: QualityRow
    gains: Sequence[float]
    """The nDCG of each query, in their order."""

    ranks: Sequence[Ranks]


@define(kw_only=True)
class RetrievalEvaluator:
    """Measures retrieval through an open client. Queries are `len(queries)` requests for each way.

    `on_progress` hears of each step;
    """

    client: AsyncClient
    queries: Sequence[EvaluationQuery]
    source: str
    counter: RequestCounter
    on_progress: OnProgress
    ks: Sequence[int] = TOP_KS
    _measured: list[_ScoredRow] = field(factory=list, init=False)
    _notes: list[str] = field(factory=list, init=False)
    _models: list[str] = field(factory=list, init=False)
    _documents: int = field(default=0, init=False)
    _began: float = field(factory=loop_time, init=False)

    async def evaluate_dataset(self, dataset: Dataset) -> QualityReport:
        """Search a base that there is, and change nothing.

        Raises:
            ConfigError: it has neither economy nor high-quality indexing yet.
            KnowledgeError: the server refuses.
        """
        embedding = None
        if dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY:
            if not dataset.embedding_model or not dataset.embedding_model_provider:
                raise ConfigError(
                    f"The dataset {dataset.name!r} does not tell its embedding model.",
                    hint="Choose one in the console.",
                )
            embedding = ModelRef(
                provider=dataset.embedding_model_provider, model=dataset.embedding_model
            )
        elif dataset.indexing_technique is not IndexingTechnique.ECONOMY:
            raise ConfigError(
                f"The dataset {dataset.name!r} has no index yet.", hint="Load documents first."
            )
        self._documents = dataset.document_count
        await self._run_methods(dataset.name, dataset, await self._choose_search_methods(embedding))
        return self._build_report()

    async def evaluate_corpus(
        self, source: Source, chunkings: Sequence[Chunking], technique: Technique | None
    ) -> QualityReport:
        """Load documents into a base of its own for each way to cut, search it, and delete it.

        Raises:
            ConfigError: high quality was asked for, and there is no embedding model.
            KnowledgeError: the server refuses, nothing was loaded, or a base could not be
                deleted.
        """
        embedding = await self._choose_embedding(technique)
        factories = await self._choose_search_methods(embedding)
        for chunking in chunkings:
            if chunking.form is not None and embedding is None:
                continue  # an economy base has no such documents
            kind = "high_quality" if embedding else "economy"
            async with temporary_dataset(self.client, kind, embedding or UNSET) as dataset:
                await self._load(dataset, source, chunking)
                await self._run_methods(chunking.name, dataset, factories)
        return self._build_report()

    async def _load(self, dataset: Dataset, source: Source, chunking: Chunking) -> None:
        self._report_progress("loading", chunking.name)
        with tempfile.TemporaryDirectory() as folder:
            report = await self.client.load(
                dataset,
                source,
                process_rule=chunking.rule,
                doc_form=chunking.form,
                journal=Path(folder) / "journal.db",
            )
            why = next((failure.reason for failure in report.failures()), report.stopped)
        self._documents = max(self._documents, report.added)
        if not report.added:
            raise KnowledgeError(
                f"No document of {report.found} was indexed ({why}).",
                hint="`dify-kb doctor` tells what the server lacks.",
            )
        if not report:
            failed = report.found - report.added - report.skipped
            self._notes.append(f"{chunking.name}: {failed} files were not indexed ({why}).")

    async def _choose_embedding(self, technique: Technique | None) -> ModelRef | None:
        if technique == "economy":
            return None
        found = await list_models(self.client, ModelType.TEXT_EMBEDDING)
        if not found and technique == "high_quality":
            raise ConfigError(
                "The workspace has no embedding model, which a high-quality base needs.",
                hint="Add one in the console, or measure an economy base.",
            )
        return next(iter(found), None)

    async def _choose_search_methods(
        self, embedding: ModelRef | None
    ) -> Mapping[str, SearchFactory]:
        if embedding is None:
            return list_search_methods(embedding=None, rerank=None)
        rerank = next(iter(await list_models(self.client, ModelType.RERANK)), None)
        used = [model for model in (embedding, rerank) if model is not None]
        self._models = [f"{model.provider}:{model.model}" for model in used]
        return list_search_methods(
            embedding=embedding, rerank=rerank, weights=COMPARED_VECTOR_WEIGHTS
        )

    async def _run_methods(
        self, base: str, dataset: Dataset, factories: Mapping[str, SearchFactory]
    ) -> None:
        for name, method in factories.items():
            self._report_progress("asking", f"{base}, {name}")
            try:
                self._measured.append(await self._run_queries(base, name, dataset, method))
            except BadRequestError as error:
                # E.g. a reranking model that fails; what else there is can still be compared.
                self._notes.append(f"{base}, {name}: {error.summary}")
        if not self._measured and self._notes:
            raise KnowledgeError(self._notes[-1], hint="No search of this base works.")

    async def _run_queries(
        self, base: str, name: str, dataset: Dataset, method: SearchFactory
    ) -> _ScoredRow:
        model = method(max(self.ks))
        ranks: list[Ranks] = [()] * len(self.queries)
        times: list[float] = []
        lengths: list[int] = []
        remaining = iter(enumerate(self.queries))

        async def worker() -> None:
            for number, query in remaining:
                began = time.perf_counter()
                try:
                    found = await retrieve(dataset, query.query, retrieval_model=model)
                except KnowledgeError as error:
                    errors.append(error)
                    group.cancel_scope.cancel()
                    return
                times.append(time.perf_counter() - began)
                lengths.extend(len(record.segment.content) for record in found.records)
                ranks[number] = find_ranks(query, found.records)

        retrieve, errors = self.client.datasets.retrieve, list[KnowledgeError]()
        # The first query makes servers fetch what they keep for the next ones.
        await retrieve(dataset, self.queries[0].query, retrieval_model=model)
        async with anyio.create_task_group() as group:
            for _ in range(CONCURRENCY):
                group.start_soon(worker)
        if errors:
            raise errors[0]
        return self._score_method(base, name, ranks, times, lengths)

    def _score_method(
        self,
        base: str,
        name: str,
        ranks: Sequence[Ranks],
        times: Sequence[float],
        lengths: Sequence[int],
    ) -> _ScoredRow:
        max_k = max(self.ks)
        gains = [ndcg(of_query, max_k) for of_query in ranks]
        row = QualityRow(
            base=base,
            method=name,
            recall={
                str(k): Mean.from_values([recall(of_query, k) for of_query in ranks])
                for k in self.ks
            },
            mrr=Mean.from_values([reciprocal_rank(of_query, max_k) for of_query in ranks]),
            ndcg=Mean.from_values(gains),
            missed=sum(all(rank is None for rank in of_query) for of_query in ranks),
            tied=True,
            characters=sum(lengths) / max(1, len(lengths)),
            latency=Latency.from_seconds(times),
        )
        return _ScoredRow(row, gains, ranks)

    def _report_progress(self, phase: str, what: str) -> None:
        self.on_progress(ProgressStep(phase=phase, description=what, completed_part=0.0))

    def _build_report(self) -> QualityReport:
        ordered = sorted(self._measured, key=lambda found: -found.row.ndcg.value)
        best = ordered[0]
        missed = [
            MissedQuery(query=query.query, relevant=[str(target) for target in query.relevant])
            for query, ranks in zip(self.queries, best.ranks, strict=True)
            if all(rank is None for rank in ranks)
        ]
        return QualityReport(
            where=describe_environment(self.client),
            source=self.source,
            queries=len(self.queries),
            documents=self._documents,
            models=self._models,
            ks=self.ks,
            rows=[
                evolve(
                    found.row,
                    tied=found is best or not differ_significantly(best.gains, found.gains),
                )
                for found in ordered
            ],
            missed=missed[:MAX_MISSED_SHOWN],
            notes=self._notes,
            requests=self.counter.requests,
            seconds=loop_time() - self._began,
        )


def find_ranks(query: EvaluationQuery, records: Sequence[Record]) -> Ranks:
    """Tell at which rank each relevant thing was found first.

    A passage that is listed twice, as servers up to 1.8 do (recording 933), counts once.
    """
    unique_records = list({record.segment.id: record for record in records}.values())
    return [
        next((rank for rank, record in enumerate(unique_records, 1) if target.is_in(record)), None)
        for target in query.relevant
    ]


def items_from_documents(samples: Sequence[tuple[str, bytes]]) -> Sequence[Item]:
    """Make a source of documents in memory."""
    return [Item(name, bytes=data) for name, data in samples]
