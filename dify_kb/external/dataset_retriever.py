"""A retriever for datasets of another Dify server."""

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
)

from .retriever import RetrievalRecord

if TYPE_CHECKING:
    from dify_kb.models import Record as DatasetRecord

    from .retriever import RetrievalRequest


class DatasetSearch(Protocol):
    """The part of `AsyncClient.datasets` that the retriever uses."""

    async def retrieve(
        self, dataset_id: Dataset | str, query: str, /, *, retrieval_model: RetrievalModel
    ) -> RetrievalResult:
        """Search a dataset."""
        ...


@frozen
class DatasetRetriever:
    """A retriever for a knowledge base of another Dify; one request per query.

    The other server applies the metadata conditions to the fields of its documents; servers before
    1.11 support fewer comparisons (see `Field`). If the response has no scores, as for economy
    datasets, the records get 1, 1/2, 1/3 … by rank. The metadata of a record are those of its
    document, plus `document_id`, `segment_id` and `position`.

    Args:
        datasets: `client.datasets` of an `AsyncClient`, which must stay open.
        dataset: a `Dataset` or an id. An id uses semantic search unless `retrieval_model` is given.
        retrieval_model: search settings; default: those stored in the `Dataset`, or keyword search
            for an economy dataset. `top_k`, threshold and conditions come from each query.
    """

    datasets: DatasetSearch
    dataset: Dataset | str
    retrieval_model: RetrievalModel | None = None

    filters_metadata = True

    async def retrieve(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        """Search the dataset with the first 250 characters of the query, Dify's limit.

        Raises:
            KnowledgeError: the other Dify rejected the request or cannot be reached.
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
    stored = dataset.retrieval_model_dict
    return (stored and stored.to_retrieval_model()) or RetrievalModel.semantic()


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
