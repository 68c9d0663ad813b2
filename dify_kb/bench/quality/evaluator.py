"""Evaluate every search method of a dataset by queries with known answers."""

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
    ndcg,
    recall,
    reciprocal_rank,
)
from dify_kb.bench.results import MissedQuery, QualityReport, QualityRow, describe_environment
from dify_kb.bench.search_methods import COMPARED_VECTOR_WEIGHTS, SearchFactory, list_search_methods
from dify_kb.bench.significance import find_worse_than_best
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
)
from dify_kb.transport.clock import loop_time

from . import trec_files
from .evaluation_queries import EvaluationQuery, find_ranks

if TYPE_CHECKING:
    from dify_kb.bench.benchmark_plan import Technique

CONCURRENCY = 2
"""Concurrent queries; a default server is saturated by two or three (measured)."""

MAX_MISSED_SHOWN = 20
"""Maximum number of missed queries in a report."""

MAX_NAMED = 5
"""The number of missing documents that a note names."""


@frozen(kw_only=True)
class Chunking:
    """A named chunking: the process rule and document form of a load."""

    name: str
    rule: ProcessRule
    form: DocForm | None = None


def list_chunkings(sizes: Sequence[int], *, parents: bool) -> Sequence[Chunking]:
    """Return a chunking per size, with an overlap of a tenth, at most 50 characters.

    Args:
        parents: whether to add parent-child chunking, which requires a high-quality dataset.

    Raises:
        ConfigError: a chunk size that servers accept and then fail to index.
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
    """A row with the results of each query."""

    row: QualityRow
    gains: Sequence[float]
    """The nDCG of each query, in order."""

    found: Sequence[Sequence[str]]
    """What was found for each query, by rank, as document ids of TREC."""


@define(kw_only=True)
class RetrievalEvaluator:
    """An evaluation of retrieval through an open client.

    Each search method costs `len(queries)` + 1 requests. `on_progress` is called with each step.
    """

    client: AsyncClient
    queries: Sequence[EvaluationQuery]
    source: str
    counter: RequestCounter
    on_progress: OnProgress
    ks: Sequence[int] = TOP_KS
    methods: Sequence[str] = ()
    """Names of the search methods to evaluate; default: all that are available."""

    _measured: list[_ScoredRow] = field(factory=list, init=False)
    _notes: list[str] = field(factory=list, init=False)
    _models: list[str] = field(factory=list, init=False)
    _documents: int = field(default=0, init=False)
    _began: float = field(factory=loop_time, init=False)

    async def evaluate_dataset(self, dataset: Dataset) -> QualityReport:
        """Search an existing dataset, without changing it.

        Raises:
            ConfigError: the dataset has no index yet.
            KnowledgeError: the server refuses the requests.
        """
        embedding = None
        if dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY:
            if not dataset.embedding_model or not dataset.embedding_model_provider:
                raise ConfigError(
                    f"The server does not return the embedding model of dataset {dataset.name!r}.",
                    hint="Choose one in the console.",
                )
            embedding = ModelRef(
                provider=dataset.embedding_model_provider, model=dataset.embedding_model
            )
        elif dataset.indexing_technique is not IndexingTechnique.ECONOMY:
            raise ConfigError(
                f"The dataset {dataset.name!r} has no index yet.", hint="Load documents first."
            )
        self._documents = dataset.document_count or 0
        await self._note_missing_documents(dataset)
        await self._run_methods(dataset.name, dataset, await self._choose_search_methods(embedding))
        return self._build_report()

    async def evaluate_corpus(
        self, source: Source, chunkings: Sequence[Chunking], technique: Technique | None
    ) -> QualityReport:
        """Load documents into a temporary dataset per chunking, search it, and delete it.

        Raises:
            ConfigError: high_quality was requested, and there is no embedding model.
            KnowledgeError: the server refuses the requests, no document was indexed, or a
                temporary dataset could not be deleted.
        """
        embedding = await self._choose_embedding(technique)
        factories = await self._choose_search_methods(embedding)
        for chunking in chunkings:
            if chunking.form is not None and embedding is None:
                continue  # economy datasets do not support parent-child
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
                f"None of {report.found} files was indexed: {why}.",
                hint="Check the server with `dify-kb doctor`.",
            )
        if not report:
            failed = report.found - report.added - report.skipped
            self._notes.append(f"{chunking.name}: {failed} files not indexed: {why}.")

    async def _note_missing_documents(self, dataset: Dataset) -> None:
        """Add a note about relevant documents that the dataset lacks: no method can find them.

        Costs one request per 100 documents.
        """
        wanted = [one for query in self.queries for one in query.relevant if one.document]
        if not wanted:
            return
        known: set[str] = set()
        async for row in self.client.documents.iter(dataset):
            known |= {row.id, row.name}
        missing = dict.fromkeys(str(one) for one in wanted if not one.names_one_of(known))
        if missing:
            shown = ", ".join([*missing][:MAX_NAMED])
            more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
            noun = "Document" if len(missing) == 1 else "Documents"
            self._notes.append(f"{noun} not found in {dataset.name}: {shown}{more}.")

    async def _choose_embedding(self, technique: Technique | None) -> ModelRef | None:
        if technique == "economy":
            return None
        found = await list_models(self.client, ModelType.TEXT_EMBEDDING)
        if not found and technique == "high_quality":
            raise ConfigError(
                "The workspace has no embedding model; high_quality indexing requires one.",
                hint="Add one in the console, or use `--technique economy`.",
            )
        return next(iter(found), None)

    async def _choose_search_methods(
        self, embedding: ModelRef | None
    ) -> Mapping[str, SearchFactory]:
        if embedding is None:
            return self._select_methods(list_search_methods(embedding=None, rerank=None))
        rerank = next(iter(await list_models(self.client, ModelType.RERANK)), None)
        used = [model for model in (embedding, rerank) if model is not None]
        self._models = [f"{model.provider}:{model.model}" for model in used]
        return self._select_methods(
            list_search_methods(embedding=embedding, rerank=rerank, weights=COMPARED_VECTOR_WEIGHTS)
        )

    def _select_methods(
        self, available: Mapping[str, SearchFactory]
    ) -> Mapping[str, SearchFactory]:
        for name in self.methods:
            if name not in available:
                raise ConfigError(
                    f"Search method not available: {name!r}.",
                    hint=f"Pass one of: {'; '.join(available)}.",
                )
        return {name: available[name] for name in self.methods or available}

    async def _run_methods(
        self, base: str, dataset: Dataset, factories: Mapping[str, SearchFactory]
    ) -> None:
        for name, method in factories.items():
            self._report_progress("querying", f"{base}, {name}")
            try:
                self._measured.append(await self._run_queries(base, name, dataset, method))
            except BadRequestError as error:
                # E.g. a reranking model fails; the other methods can still be compared.
                self._notes.append(f"{base}, {name}: {error.summary}")
        if not self._measured and self._notes:
            raise KnowledgeError(self._notes[-1], hint="Check the models of the workspace.")

    async def _run_queries(
        self, base: str, name: str, dataset: Dataset, method: SearchFactory
    ) -> _ScoredRow:
        model = method(max(self.ks))
        ranks: list[Ranks] = [()] * len(self.queries)
        documents: list[Sequence[str]] = [()] * len(self.queries)
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
                documents[number] = trec_files.list_found(number, query, found.records)

        retrieve, errors = self.client.datasets.retrieve, list[KnowledgeError]()
        # Warm-up: the first query fills caches of the server.
        await retrieve(dataset, self.queries[0].query, retrieval_model=model)
        async with anyio.create_task_group() as group:
            for _ in range(CONCURRENCY):
                group.start_soon(worker)
        if errors:
            raise errors[0]
        row = self._score_method(base, name, ranks, times, lengths)
        return _ScoredRow(row, [ndcg(of_query, max(self.ks)) for of_query in ranks], documents)

    def _score_method(
        self,
        base: str,
        name: str,
        ranks: Sequence[Ranks],
        times: Sequence[float],
        lengths: Sequence[int],
    ) -> QualityRow:
        max_k = max(self.ks)
        return QualityRow(
            base=base,
            method=name,
            recall={
                str(k): Mean.from_values([recall(of_query, k) for of_query in ranks])
                for k in self.ks
            },
            mrr=Mean.from_values([reciprocal_rank(of_query, max_k) for of_query in ranks]),
            ndcg=Mean.from_values([ndcg(of_query, max_k) for of_query in ranks]),
            missed=sum(all(rank is None for rank in of_query) for of_query in ranks),
            tied=True,
            characters=sum(lengths) / max(1, len(lengths)),
            latency=Latency.from_seconds(times),
            ranks=ranks,
        )

    def _report_progress(self, phase: str, what: str) -> None:
        self.on_progress(ProgressStep(phase=phase, description=what, completed_part=0.0))

    def write_trec_files(self, folder: Path) -> None:
        """Write the relevant items and the results of each row as TREC files.

        Raises:
            ConfigError: the folder cannot be written.
        """
        runs = {f"{found.row.base}, {found.row.method}": found.found for found in self._measured}
        trec_files.write_trec_files(folder, self.queries, runs)

    def _build_report(self) -> QualityReport:
        ordered = sorted(self._measured, key=lambda found: -found.row.ndcg.value)
        worse = find_worse_than_best([found.gains for found in ordered])
        drafts = sum(bool(query.draft) for query in self.queries)
        missed = [
            MissedQuery(query=query.query, relevant=[str(target) for target in query.relevant])
            for query, ranks in zip(self.queries, ordered[0].row.ranks, strict=True)
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
                evolve(found.row, tied=not is_worse)
                for found, is_worse in zip(ordered, worse, strict=True)
            ],
            asked=[query.query for query in self.queries],
            drafts=drafts,
            missed=missed[:MAX_MISSED_SHOWN],
            notes=self._notes,
            requests=self.counter.requests,
            seconds=loop_time() - self._began,
        )


def items_from_documents(samples: Sequence[tuple[str, bytes]]) -> Sequence[Item]:
    """Return documents in memory as the items of a load."""
    return [Item(name, bytes=data) for name, data in samples]
