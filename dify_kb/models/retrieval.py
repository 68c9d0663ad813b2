"""How a knowledge base is searched, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import field, frozen

from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset

if TYPE_CHECKING:
    from .workspace import ModelRef

MAX_QUERY = 250
"""Characters of a query; 251 are a 400 (recording 765)."""


class SearchMethod(OpenEnum):
    """How chunks are found. An economy base only has keyword search."""

    SEMANTIC = "semantic_search"
    FULL_TEXT = "full_text_search"
    HYBRID = "hybrid_search"
    KEYWORD = "keyword_search"


class RerankingMode(OpenEnum):
    """How a hybrid search orders what it found."""

    RERANKING_MODEL = "reranking_model"
    WEIGHTED_SCORE = "weighted_score"


@frozen(kw_only=True)
class RerankingModel:
    """A reranking model, in the server's field names."""

    reranking_provider_name: str | None = None
    reranking_model_name: str | None = None


@frozen(kw_only=True)
class VectorSetting:
    """The semantic part of weights; all three fields are needed (reference.md §1.5)."""

    vector_weight: float
    embedding_provider_name: str
    embedding_model_name: str


@frozen(kw_only=True)
class KeywordSetting:
    """The full-text part of weights."""

    keyword_weight: float


@frozen(kw_only=True)
class Weights:
    """How much the two halves of a hybrid search count."""

    weight_type: str | None = None
    vector_setting: VectorSetting | None = None
    keyword_setting: KeywordSetting | None = None


@frozen(kw_only=True)
class RetrievalModel:
    """How to search; build one with `semantic`, `full_text` or `keyword`.

    The four fields without a default are always sent: a missing one is a 400 on create and a 500
    on retrieve (findings.md §8.13).
    """

    search_method: SearchMethod
    reranking_enable: bool = False
    reranking_mode: RerankingMode | Unset | None = UNSET
    reranking_model: RerankingModel | Unset | None = UNSET
    weights: Weights | Unset | None = UNSET
    top_k: int = 4
    score_threshold_enabled: bool = False
    score_threshold: float | Unset | None = UNSET
    metadata_filtering_conditions: Mapping[str, object] | Unset | None = UNSET

    @classmethod
    def semantic(
        cls, *, top_k: int = 4, score_threshold: float | None = None, rerank: ModelRef | None = None
    ) -> RetrievalModel:
        """Search by meaning (a high-quality base).

        Raises:
            ConfigError: `top_k` below 1.
        """
        return _by(SearchMethod.SEMANTIC, top_k, score_threshold, rerank)

    @classmethod
    def full_text(
        cls, *, top_k: int = 4, score_threshold: float | None = None, rerank: ModelRef | None = None
    ) -> RetrievalModel:
        """Search by words (a high-quality base).

        Raises:
            ConfigError: `top_k` below 1.
        """
        return _by(SearchMethod.FULL_TEXT, top_k, score_threshold, rerank)

    @classmethod
    def keyword(cls, *, top_k: int = 4) -> RetrievalModel:
        """Search by keywords: what an economy base has. Scores and thresholds mean nothing here.

        Raises:
            ConfigError: `top_k` below 1.
        """
        return _by(SearchMethod.KEYWORD, top_k, None, None)


def _by(
    method: SearchMethod, top_k: int, score_threshold: float | None, rerank: ModelRef | None
) -> RetrievalModel:
    if top_k < 1:
        raise ConfigError(f"top_k is {top_k}.", hint="Ask for at least one passage.")
    return RetrievalModel(
        search_method=method,
        top_k=top_k,
        score_threshold_enabled=score_threshold is not None,
        score_threshold=UNSET if score_threshold is None else score_threshold,
        reranking_enable=rerank is not None,
        reranking_mode=UNSET if rerank is None else RerankingMode.RERANKING_MODEL,
        reranking_model=UNSET
        if rerank is None
        else RerankingModel(
            reranking_provider_name=rerank.provider, reranking_model_name=rerank.model
        ),
    )


@frozen(kw_only=True)
class Retrieve:
    """Request: one question."""

    query: str
    retrieval_model: RetrievalModel | Unset | None = UNSET


@frozen(kw_only=True)
class RecordDocument:
    """The document that a passage is from. `doc_metadata` maps field names to values."""

    id: str
    name: str
    data_source_type: str | None = None
    doc_type: str | None = None
    doc_metadata: Mapping[str, object] | None = None


@frozen(kw_only=True)
class RecordSegment:
    """The chunk that was found. Checked against recordings 752 to 950."""

    id: str
    document_id: str
    content: str
    position: int
    document: RecordDocument
    sign_content: str | None = None
    answer: str | None = None
    word_count: int | None = None
    tokens: int | None = None
    keywords: Sequence[str] | None = None
    index_node_id: str | None = None
    index_node_hash: str | None = None
    hit_count: int | None = None
    enabled: bool = True
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    status: str | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    indexing_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    stopped_at: datetime | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class RecordChild:
    """A child chunk that made its parent be found."""

    id: str
    content: str
    position: int
    score: float | None = None


@frozen(kw_only=True)
class Record:
    """One passage. `score` is null or 0.0 on an economy base (recording 752)."""

    segment: RecordSegment
    score: float | None = None
    child_chunks: Sequence[RecordChild] | None = None
    tsne_position: object = None
    files: Sequence[Mapping[str, object]] | None = None
    summary: str | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Query:
    """The question, as the server took it."""

    content: str


@frozen(kw_only=True)
class Retrieved:
    """Answer of a search."""

    query: Query
    records: Sequence[Record]
