"""Asking a base what is known to be in it, in every way that it can be searched."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.bench.methods import WEIGHTS, Method, methods
from dify_kb.bench.numbers import Latency
from dify_kb.bench.own import models, own_dataset
from dify_kb.bench.place import place
from dify_kb.bench.watch import Step, Tally, Tell
from dify_kb.client import AsyncClient
from dify_kb.errors import BadRequestError, ConfigError, KnowledgeError
from dify_kb.ingest import Item, Source
from dify_kb.models import UNSET, Dataset, IndexingTechnique, ModelRef, ModelType, Record
from dify_kb.transport.clock import loop_time

from .metrics import Mean, Ranks, apart, ndcg, recall, reciprocal_rank
from .queries import Asked
from .report import Missed, QualityReport, Row

if TYPE_CHECKING:
    from dify_kb.bench.plan import Technique

    from .cuts import Cut

KS = (1, 3, 5, 10)

AT_ONCE = 2
"""Queries at once: a default server is full with two or three requests (measured)."""

SHOWN = 20
"""Queries without an answer that a report lists."""


@define
class _Measured:
    """A row with what it was made of."""

    row: Row
    gains: Sequence[float]
    """The nDCG of each query, in their order."""

    ranks: Sequence[Ranks]


@define(kw_only=True)
class Quality:
    """Measures retrieval through an open client. Queries are `len(asked)` requests for each way.

    `tell` hears of each step; `total` is the number of rows that will be measured, if known.
    """

    client: AsyncClient
    asked: Sequence[Asked]
    source: str
    tally: Tally
    tell: Tell
    ks: Sequence[int] = KS
    _measured: list[_Measured] = field(factory=list, init=False)
    _notes: list[str] = field(factory=list, init=False)
    _models: list[str] = field(factory=list, init=False)
    _documents: int = field(default=0, init=False)
    _began: float = field(factory=loop_time, init=False)

    async def of_dataset(self, dataset: Dataset) -> QualityReport:
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
        await self._ask_all(dataset.name, dataset, await self._ways(embedding))
        return self._report()

    async def of_corpus(
        self, source: Source, cuts: Sequence[Cut], technique: Technique | None
    ) -> QualityReport:
        """Load documents into a base of its own for each way to cut, search it, and delete it.

        Raises:
            ConfigError: high quality was asked for, and there is no embedding model.
            KnowledgeError: the server refuses, nothing was loaded, or a base could not be
                deleted.
        """
        embedding = await self._embedding(technique)
        ways = await self._ways(embedding)
        for cut in cuts:
            if cut.form is not None and embedding is None:
                continue  # an economy base has no such documents
            kind = "high_quality" if embedding else "economy"
            async with own_dataset(self.client, kind, embedding or UNSET) as dataset:
                await self._load(dataset, source, cut)
                await self._ask_all(cut.name, dataset, ways)
        return self._report()

    async def _load(self, dataset: Dataset, source: Source, cut: Cut) -> None:
        self._say("loading", cut.name)
        with tempfile.TemporaryDirectory() as folder:
            report = await self.client.load(
                dataset,
                source,
                process_rule=cut.rule,
                doc_form=cut.form,
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
            lost = report.found - report.added - report.skipped
            self._notes.append(f"{cut.name}: {lost} files were not indexed ({why}).")

    async def _embedding(self, technique: Technique | None) -> ModelRef | None:
        if technique == "economy":
            return None
        found = await models(self.client, ModelType.TEXT_EMBEDDING)
        if not found and technique == "high_quality":
            raise ConfigError(
                "The workspace has no embedding model, which a high-quality base needs.",
                hint="Add one in the console, or measure an economy base.",
            )
        return next(iter(found), None)

    async def _ways(self, embedding: ModelRef | None) -> Mapping[str, Method]:
        if embedding is None:
            return methods(embedding=None, rerank=None)
        rerank = next(iter(await models(self.client, ModelType.RERANK)), None)
        used = [model for model in (embedding, rerank) if model is not None]
        self._models = [f"{model.provider}:{model.model}" for model in used]
        return methods(embedding=embedding, rerank=rerank, weights=WEIGHTS)

    async def _ask_all(self, base: str, dataset: Dataset, ways: Mapping[str, Method]) -> None:
        for name, method in ways.items():
            self._say("asking", f"{base}, {name}")
            try:
                self._measured.append(await self._ask(base, name, dataset, method))
            except BadRequestError as error:
                # E.g. a reranking model that fails; what else there is can still be compared.
                self._notes.append(f"{base}, {name}: {error.summary}")
        if not self._measured and self._notes:
            raise KnowledgeError(self._notes[-1], hint="No search of this base works.")

    async def _ask(self, base: str, name: str, dataset: Dataset, method: Method) -> _Measured:
        model = method(max(self.ks))
        ranks: list[Ranks] = [()] * len(self.asked)
        times: list[float] = []
        lengths: list[int] = []
        left = iter(enumerate(self.asked))

        async def worker() -> None:
            for number, asked in left:
                began = time.perf_counter()
                try:
                    found = await retrieve(dataset, asked.query, retrieval_model=model)
                except KnowledgeError as error:
                    stopped.append(error)
                    group.cancel_scope.cancel()
                    return
                times.append(time.perf_counter() - began)
                lengths.extend(len(record.segment.content) for record in found.records)
                ranks[number] = ranks_of(asked, found.records)

        retrieve, stopped = self.client.datasets.retrieve, list[KnowledgeError]()
        # The first query makes servers fetch what they keep for the next ones.
        await retrieve(dataset, self.asked[0].query, retrieval_model=model)
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(worker)
        if stopped:
            raise stopped[0]
        return self._summed(base, name, ranks, times, lengths)

    def _summed(
        self,
        base: str,
        name: str,
        ranks: Sequence[Ranks],
        times: Sequence[float],
        lengths: Sequence[int],
    ) -> _Measured:
        most = max(self.ks)
        gains = [ndcg(of_query, most) for of_query in ranks]
        row = Row(
            base=base,
            method=name,
            recall={str(k): Mean.of([recall(of_query, k) for of_query in ranks]) for k in self.ks},
            mrr=Mean.of([reciprocal_rank(of_query, most) for of_query in ranks]),
            ndcg=Mean.of(gains),
            missed=sum(all(rank is None for rank in of_query) for of_query in ranks),
            tied=True,
            characters=sum(lengths) / max(1, len(lengths)),
            latency=Latency.of(times),
        )
        return _Measured(row, gains, ranks)

    def _say(self, phase: str, what: str) -> None:
        self.tell(Step(phase=phase, what=what, part=0.0))

    def _report(self) -> QualityReport:
        ordered = sorted(self._measured, key=lambda found: -found.row.ndcg.value)
        best = ordered[0]
        missed = [
            Missed(query=asked.query, relevant=[str(target) for target in asked.relevant])
            for asked, ranks in zip(self.asked, best.ranks, strict=True)
            if all(rank is None for rank in ranks)
        ]
        return QualityReport(
            where=place(self.client),
            source=self.source,
            queries=len(self.asked),
            documents=self._documents,
            models=self._models,
            ks=self.ks,
            rows=[
                evolve(found.row, tied=found is best or not apart(best.gains, found.gains))
                for found in ordered
            ],
            missed=missed[:SHOWN],
            notes=self._notes,
            requests=self.tally.requests,
            seconds=loop_time() - self._began,
        )


def ranks_of(asked: Asked, records: Sequence[Record]) -> Ranks:
    """Tell at which rank each relevant thing was found first.

    A passage that is listed twice, as servers up to 1.8 do (recording 933), counts once.
    """
    listed = list({record.segment.id: record for record in records}.values())
    return [
        next((rank for rank, record in enumerate(listed, 1) if target.found_in(record)), None)
        for target in asked.relevant
    ]


def items(samples: Sequence[tuple[str, bytes]]) -> Sequence[Item]:
    """Make a source of documents in memory."""
    return [Item(name, bytes=data) for name, data in samples]
