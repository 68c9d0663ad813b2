from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attrs import evolve, frozen

from dify_kb.models import (
    MAX_QUERY_LENGTH,
    UNSET,
    Dataset,
    IndexingTechnique,
    RetrievalModel,
    RetrievalResult,
    StoredRetrievalModel,
)

from .retriever import RetrievalRecord

if TYPE_CHECKING:
    from dify_kb.models import Record as DatasetRecord

    from .retriever import RetrievalRequest


class DatasetSearch(Protocol):
    """What has Dify's datasets: `AsyncClient(…).datasets`."""

    async def retrieve(
        self, dataset_id: Dataset | str, query: str, /, *, retrieval_model: RetrievalModel
    ) -> RetrievalResult:
        """Search a dataset."""
        ...


@frozen
class DatasetRetriever:
    """Serves a knowledge base of another Dify. One request for each question.

    Metadata conditions are applied there, on the fields of its documents; servers before 1.11
    compare less (see `Field`). Where the base tells no scores, as economy ones do, a record's is
    1, 1/2, 1/3 … by its place. Metadata of a record are those of its document, with `document_id`,
    `segment_id` and `position`.

    Args:
        datasets: `client.datasets` of an `AsyncClient`, which stays open meanwhile.
        dataset: a `Dataset`, or an id, which is then searched by meaning unless `retrieval_model`
            says otherwise.
        retrieval_model: how to search; without it as the `Dataset` has it stored, an economy one
            by keywords. `top_k`, threshold and conditions are those of each question.
    """

    datasets: DatasetSearch
    dataset: Dataset | str
    retrieval_model: RetrievalModel | None = None

    filters_metadata = True

    async def retrieve(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        """Search the base; only 250 characters of a question reach it, as it takes no more.

        Raises:
            KnowledgeError: the other Dify refused, or was not reached.
        """
        model = evolve(
            self.retrieval_model or _default_retrieval_model(self.dataset),
            top_k=query.top_k,
            score_threshold_enabled=query.score_threshold > 0,
            score_threshold=query.score_threshold or UNSET,
            metadata_filtering_conditions=query.metadata_condition or UNSET,
        )
        result = await self.datasets.retrieve(
            self.dataset, query.query[:MAX_QUERY_LENGTH], retrieval_model=model
        )
        has_scores = any(record.score for record in result.records)
        return [
            _to_record(record, (record.score or 0.0) if has_scores else 1 / rank)
            for rank, record in enumerate(result.records, 1)
        ]


def _default_retrieval_model(dataset: Dataset | str) -> RetrievalModel:
    if isinstance(dataset, str):
        return RetrievalModel.semantic()
    if dataset.indexing_technique != IndexingTechnique.HIGH_QUALITY:
        return RetrievalModel.keyword()
    stored = dataset.retrieval_model_dict or StoredRetrievalModel()
    if stored.search_method is None:
        return RetrievalModel.semantic()
    return RetrievalModel(
        search_method=stored.search_method,
        reranking_enable=bool(stored.reranking_enable),
        reranking_mode=stored.reranking_mode or UNSET,
        reranking_model=stored.reranking_model or UNSET,
        weights=stored.weights or UNSET,
    )


def _to_record(record: DatasetRecord, score: float) -> RetrievalRecord:
    segment = record.segment
    own_metadata = {
        "document_id": segment.document_id,
        "segment_id": segment.id,
        "position": segment.position,
    }
    return RetrievalRecord(
        segment.content if not segment.answer else f"{segment.content}\n{segment.answer}",
        score=score,
        title=segment.document.name,
        metadata={**(segment.document.doc_metadata or {}), **own_metadata},
    )
