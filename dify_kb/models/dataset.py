"""Knowledge bases, called datasets in the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from attrs import field, frozen

from dify_kb.argument_checks import check_constructor

from ._base import UNSET, OpenEnum, Unset
from .retrieval import RerankingMode, RerankingModel, RetrievalModel, SearchMethod, Weights


class IndexingTechnique(OpenEnum):
    """The method by which chunks are indexed: an embedding model, or keywords only."""

    HIGH_QUALITY = "high_quality"
    ECONOMY = "economy"


TechniqueName = Literal["high_quality", "economy"]
"""The values of `IndexingTechnique`."""

ProviderName = Literal["vendor", "external"]
"""The providers of datasets: Dify itself, or an External Knowledge API."""


class Permission(OpenEnum):
    """The members of the workspace who can see a dataset."""

    ONLY_ME = "only_me"
    ALL_TEAM_MEMBERS = "all_team_members"
    PARTIAL_MEMBERS = "partial_members"


PermissionName = Literal["only_me", "all_team_members", "partial_members"]
"""The values of `Permission`."""


class DocForm(OpenEnum):
    """The structure of a dataset's chunks; determined by its first document."""

    TEXT = "text_model"
    HIERARCHICAL = "hierarchical_model"
    QA = "qa_model"


DocFormName = Literal["text_model", "hierarchical_model", "qa_model"]
"""The values of `DocForm`."""


@frozen(kw_only=True)
class StoredRetrievalModel:
    """The retrieval settings stored with a dataset."""

    search_method: SearchMethod | None = None
    reranking_enable: bool | None = None
    reranking_mode: RerankingMode | None = None
    reranking_model: RerankingModel | None = None
    weights: Weights | None = None
    top_k: int | None = None
    score_threshold_enabled: bool | None = None
    score_threshold: float | None = None
    extra: Mapping[str, object] = field(factory=dict)

    def to_retrieval_model(self) -> RetrievalModel | None:
        """Return these settings for a search, without limits; None without a search method."""
        if self.search_method is None:
            return None
        return RetrievalModel(
            search_method=self.search_method,
            reranking_enable=bool(self.reranking_enable),
            reranking_mode=self.reranking_mode or UNSET,
            reranking_model=self.reranking_model or UNSET,
            weights=self.weights or UNSET,
        )


@check_constructor
@frozen(kw_only=True)
class SummaryIndexSetting:
    """The settings of the summary index: an LLM writes a summary of each chunk, since 1.12.

    All fields are None if the dataset has no summary index (recordings of 1.14.2).
    """

    enable: bool | None = None
    model_name: str | None = None
    model_provider_name: str | None = None
    summary_prompt: str | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class ExternalKnowledgeInfo:
    """The External Knowledge API of a dataset with the provider `external`."""

    external_knowledge_id: str | None = None
    external_knowledge_api_id: str | None = None
    external_knowledge_api_name: str | None = None
    external_knowledge_api_endpoint: str | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class Dataset:
    """A knowledge base. `word_count` is in characters.

    Only `id` and `name` are certain: other fields are None if the server's version does not have
    them, or sends a value of another type, which is then in `extra`.
    Checked against recordings of 1.4.3, 1.8.1, 1.12.1 and 1.14.2 and the published API of 1.16.
    """

    id: str
    name: str
    description: str | None = None
    provider: str | None = None
    permission: Permission | None = None
    data_source_type: str | None = None
    indexing_technique: IndexingTechnique | None = None
    app_count: int | None = None
    document_count: int | None = None
    word_count: int | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    updated_by: str | None = None
    updated_at: datetime | None = None
    embedding_model: str | None = None
    embedding_model_provider: str | None = None
    embedding_available: bool | None = None
    retrieval_model_dict: StoredRetrievalModel | None = None
    tags: Sequence[Mapping[str, object]] | None = None
    doc_form: DocForm | None = None
    external_knowledge_info: ExternalKnowledgeInfo | None = None
    external_retrieval_model: Mapping[str, object] | None = None
    doc_metadata: Sequence[Mapping[str, object]] | None = None
    built_in_field_enabled: bool | None = None
    author_name: str | None = None
    summary_index_setting: SummaryIndexSetting | None = None
    pipeline_id: str | None = None
    runtime_mode: str | None = None
    chunk_structure: str | None = None
    icon_info: Mapping[str, object] | None = None
    is_published: bool | None = None
    total_documents: int | None = None
    total_available_documents: int | None = None
    enable_api: bool | None = None
    is_multimodal: bool | None = None
    maintainer: str | None = None
    partial_member_list: Sequence[str] | None = None
    extra: Mapping[str, object] = field(factory=dict)


@frozen(kw_only=True)
class CreateDataset:
    """The request body to create a dataset."""

    name: str
    description: str | Unset = UNSET
    indexing_technique: IndexingTechnique | Unset | None = UNSET
    permission: Permission | Unset = UNSET
    provider: str | Unset = UNSET
    external_knowledge_api_id: str | Unset = UNSET
    external_knowledge_id: str | Unset = UNSET
    embedding_model: str | Unset = UNSET
    embedding_model_provider: str | Unset = UNSET
    retrieval_model: RetrievalModel | Unset = UNSET
    summary_index_setting: SummaryIndexSetting | Unset | None = UNSET


@frozen(kw_only=True)
class ListDatasets:
    """The query parameters of the dataset list."""

    page: int = 1
    limit: int = 20
    keyword: str | Unset = UNSET
    tag_ids: Sequence[str] | Unset = UNSET
    include_all: bool | Unset = UNSET


@frozen(kw_only=True)
class Member:
    """An account that may use a dataset with the permission `partial_members`."""

    user_id: str


@check_constructor
@frozen(kw_only=True)
class ExternalRetrieval:
    """The retrieval settings of an external knowledge base."""

    top_k: int
    score_threshold: float
    score_threshold_enabled: bool


@frozen(kw_only=True)
class UpdateDataset:
    """The request body to update a dataset; omitted fields stay unchanged."""

    name: str | Unset = UNSET
    description: str | Unset | None = UNSET
    indexing_technique: IndexingTechnique | Unset = UNSET
    permission: Permission | Unset = UNSET
    embedding_model: str | Unset = UNSET
    embedding_model_provider: str | Unset = UNSET
    retrieval_model: RetrievalModel | Unset = UNSET
    partial_member_list: Sequence[Member] | Unset = UNSET
    external_retrieval_model: ExternalRetrieval | Unset = UNSET
    external_knowledge_id: str | Unset = UNSET
    external_knowledge_api_id: str | Unset = UNSET
