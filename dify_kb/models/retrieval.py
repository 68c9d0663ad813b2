"""Retrieval settings and search results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from attrs import evolve, field, frozen

from dify_kb.argument_checks import check_arguments
from dify_kb.errors import ConfigError

from ._base import UNSET, OpenEnum, Unset
from .metadata_filter import Condition, MetadataFilter

if TYPE_CHECKING:
    from .workspace import ModelRef

MAX_QUERY_LENGTH = 250
"""Maximum characters of a query; longer ones get a 400 (recording 765)."""


class SearchMethod(OpenEnum):
    """The search method. Economy datasets support only keyword search."""

    SEMANTIC = "semantic_search"
    FULL_TEXT = "full_text_search"
    HYBRID = "hybrid_search"
    KEYWORD = "keyword_search"


SearchMethodName = Literal["semantic", "full_text", "hybrid", "keyword"]
"""The search methods by the names of the class methods of `RetrievalModel`."""


class RerankingMode(OpenEnum):
    """The method by which a hybrid search ranks its results."""

    RERANKING_MODEL = "reranking_model"
    WEIGHTED_SCORE = "weighted_score"


@frozen(kw_only=True)
class RerankingModel:
    """A reranking model, with the field names of the API."""

    reranking_provider_name: str | None = None
    reranking_model_name: str | None = None


@frozen(kw_only=True)
class VectorSetting:
    """The vector part of weights; all three fields are required (WeightModel, 1.12.1)."""

    vector_weight: float
    embedding_provider_name: str
    embedding_model_name: str


@frozen(kw_only=True)
class KeywordSetting:
    """The keyword part of weights."""

    keyword_weight: float


@frozen(kw_only=True)
class Weights:
    """The weights of the two parts of a hybrid search."""

    weight_type: str | None = None
    vector_setting: VectorSetting | None = None
    keyword_setting: KeywordSetting | None = None


def _parse_search_method(value: SearchMethod | str) -> SearchMethod:
    """Return a method written as text. An unknown one that a server sent is kept.

    Raises:
        ConfigError: the text is not a search method.
    """
    method = SearchMethod(value)
    if not (method.is_known or isinstance(value, SearchMethod)):
        known = "semantic_search" if value == "vector_search" else ", ".join(SearchMethod)
        raise ConfigError(f"Unknown search_method {value!r}.", hint=f"Use {known}.")
    return method


@check_arguments
@frozen(kw_only=True)
class RetrievalModel:
    """The settings of a search: method and options. Create it with one of the class methods.

    The four fields that cannot be `UNSET` are always sent: if one is missing, the server returns
    400 for a create and 500 for a search (measured).
    """

    search_method: SearchMethod = field(converter=_parse_search_method)
    reranking_enable: bool = False
    reranking_mode: RerankingMode | Unset | None = UNSET
    reranking_model: RerankingModel | Unset | None = UNSET
    weights: Weights | Unset | None = UNSET
    top_k: int = 4
    score_threshold_enabled: bool = False
    score_threshold: float | Unset | None = UNSET
    metadata_filtering_conditions: MetadataFilter | Unset | None = UNSET

    @classmethod
    def semantic(
        cls,
        *,
        top_k: int = 4,
        score_threshold: float | None = None,
        rerank: ModelRef | None = None,
        metadata_filter: MetadataFilter | Condition | None = None,
    ) -> RetrievalModel:
        """Return settings for vector search, in high-quality datasets.

        Raises:
            ConfigError: `top_k` below 1, or a threshold outside 0 to 1.
        """
        return _build_retrieval_model(
            SearchMethod.SEMANTIC, top_k, score_threshold, rerank, metadata_filter
        )

    @classmethod
    def full_text(
        cls,
        *,
        top_k: int = 4,
        score_threshold: float | None = None,
        rerank: ModelRef | None = None,
        metadata_filter: MetadataFilter | Condition | None = None,
    ) -> RetrievalModel:
        """Return settings for full-text search, in high-quality datasets.

        Raises:
            ConfigError: `top_k` below 1, or a threshold outside 0 to 1.
        """
        return _build_retrieval_model(
            SearchMethod.FULL_TEXT, top_k, score_threshold, rerank, metadata_filter
        )

    @classmethod
    def keyword(
        cls, *, top_k: int = 4, metadata_filter: MetadataFilter | Condition | None = None
    ) -> RetrievalModel:
        """Return settings for keyword search, in economy datasets. Has no meaningful scores.

        Raises:
            ConfigError: `top_k` below 1.
        """
        return _build_retrieval_model(SearchMethod.KEYWORD, top_k, None, None, metadata_filter)

    @classmethod
    def hybrid_weighted(
        cls,
        *,
        embedding: ModelRef,
        vector_weight: float = 0.7,
        top_k: int = 4,
        score_threshold: float | None = None,
        metadata_filter: MetadataFilter | Condition | None = None,
    ) -> RetrievalModel:
        """Return settings for hybrid search, ranked by a weighted sum of the two scores.

        Args:
            embedding: embedding model of the dataset; the server requires it here.
            vector_weight: weight of the vector score, 0 to 1; the keyword score has the rest.

        Raises:
            ConfigError: a weight or a threshold outside 0 to 1, or `top_k` below 1.
        """
        if not 0 <= vector_weight <= 1:
            raise ConfigError(
                f"Invalid vector_weight: {vector_weight}.", hint="Use a number from 0 to 1."
            )
        weights = Weights(
            weight_type="customized",
            vector_setting=VectorSetting(
                vector_weight=vector_weight,
                embedding_provider_name=embedding.provider,
                embedding_model_name=embedding.model,
            ),
            keyword_setting=KeywordSetting(keyword_weight=round(1 - vector_weight, 6)),
        )
        plain = _build_retrieval_model(
            SearchMethod.HYBRID, top_k, score_threshold, None, metadata_filter
        )
        return evolve(plain, reranking_mode=RerankingMode.WEIGHTED_SCORE, weights=weights)

    @classmethod
    def hybrid_reranked(
        cls,
        *,
        rerank: ModelRef,
        top_k: int = 4,
        score_threshold: float | None = None,
        metadata_filter: MetadataFilter | Condition | None = None,
    ) -> RetrievalModel:
        """Return settings for hybrid search, ranked by a reranking model.

        Has no weights, as the server ignores them when it reranks (measured).

        Raises:
            ConfigError: `top_k` below 1, or a threshold outside 0 to 1.
        """
        return _build_retrieval_model(
            SearchMethod.HYBRID, top_k, score_threshold, rerank, metadata_filter
        )


def validate_retrieval_model(model: RetrievalModel) -> RetrievalModel:
    """Return `model` if it is valid; the server would silently ignore some errors.

    Raises:
        ConfigError: an unknown search method or operator, `top_k` below 1, or a threshold outside 0
            to 1.
    """
    _parse_search_method(str(model.search_method))
    if model.top_k < 1:
        raise ConfigError(f"Invalid top_k: {model.top_k}.", hint="Use 1 or more.")
    if model.score_threshold and not 0 <= model.score_threshold <= 1:
        raise ConfigError(
            f"Invalid score_threshold: {model.score_threshold}.", hint="Use a number from 0 to 1."
        )
    if model.metadata_filtering_conditions:
        model.metadata_filtering_conditions.validate()
    return model


def _build_retrieval_model(
    method: SearchMethod,
    top_k: int,
    score_threshold: float | None,
    rerank: ModelRef | None,
    metadata_filter: MetadataFilter | Condition | None,
) -> RetrievalModel:
    plain = RetrievalModel(
        search_method=method,
        top_k=top_k,
        score_threshold_enabled=score_threshold is not None,
        score_threshold=UNSET if score_threshold is None else score_threshold,
        metadata_filtering_conditions=UNSET
        if metadata_filter is None
        else MetadataFilter.from_condition(metadata_filter),
    )
    if rerank is None:
        return validate_retrieval_model(plain)
    return evolve(
        validate_retrieval_model(plain),
        reranking_enable=True,
        reranking_mode=RerankingMode.RERANKING_MODEL,
        reranking_model=RerankingModel(
            reranking_provider_name=rerank.provider, reranking_model_name=rerank.model
        ),
    )


@frozen(kw_only=True)
class Retrieve:
    """The request body of a search."""

    query: str
    retrieval_model: RetrievalModel | Unset | None = UNSET


@frozen(kw_only=True)
class RecordDocument:
    """The document of a passage. `doc_metadata` maps field names to values."""

    id: str
    name: str
    data_source_type: str | None = None
    doc_type: str | None = None
    doc_metadata: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class RecordSegment:
    """The chunk of a search result. Checked against recordings 752 to 950."""

    id: str
    document_id: str | None = None
    content: str
    position: int | None = None
    document: RecordDocument
    sign_content: str | None = None
    answer: str | None = None
    word_count: int | None = None
    tokens: int | None = None
    keywords: Sequence[str] | None = None
    index_node_id: str | None = None
    index_node_hash: str | None = None
    hit_count: int | None = None
    enabled: bool | None = None
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
    """A child chunk that matched a search, which returns its parent."""

    id: str
    content: str
    position: int | None = None
    score: float | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Record:
    """A search result. `score` is None or 0.0 in an economy dataset (recording 752)."""

    segment: RecordSegment
    score: float | None = None
    child_chunks: Sequence[RecordChild] | None = None
    tsne_position: object = None
    files: Sequence[Mapping[str, object]] | None = None
    summary: str | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Query:
    """The query as received by the server."""

    content: str


@frozen(kw_only=True)
class RetrievalResult:
    """The results of a search. Some servers send `query` as text, which is then in `extra`."""

    query: Query | None = None
    records: Sequence[Record]
    extra: Mapping[str, object] = field(factory=dict)
