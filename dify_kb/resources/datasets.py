from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from dify_kb.argument_checks import check_methods
from dify_kb.arguments import check_unicode
from dify_kb.errors import ConfigError, KnowledgeError, PartialError
from dify_kb.models import (
    MAX_QUERY_LENGTH,
    UNSET,
    Condition,
    CreateDataset,
    Dataset,
    ExternalRetrieval,
    IndexingTechnique,
    ListDatasets,
    Member,
    MetadataFilter,
    ModelRef,
    Page,
    Permission,
    PermissionName,
    ProviderName,
    Record,
    RetrievalModel,
    RetrievalResult,
    Retrieve,
    SearchMethodName,
    SummaryIndexSetting,
    TechniqueName,
    Unset,
    UpdateDataset,
    validate_retrieval_model,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from . import _dataset_defaults as fitting
from ._arguments import check_length, check_not_empty, check_page, get_dataset_id
from ._pager import PAGE_SIZE, Pager
from ._recovery import recover

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME, MAX_DESCRIPTION = 40, 400
"""Maximum characters that the server accepts (recordings 026, 028)."""


@check_methods
@frozen
class Datasets:
    """The knowledge bases of the workspace."""

    _send: CallSender

    async def create(
        self,
        name: str,
        *,
        description: str | Unset = UNSET,
        indexing_technique: IndexingTechnique | TechniqueName | Unset | None = UNSET,
        permission: Permission | PermissionName | Unset = UNSET,
        embedding: ModelRef | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
        provider: ProviderName | Unset = UNSET,
        external_knowledge_api_id: str | Unset = UNSET,
        external_knowledge_id: str | Unset = UNSET,
        summary_index_setting: SummaryIndexSetting | Unset | None = UNSET,
        partial_member_list: Sequence[str] | Unset = UNSET,
    ) -> Dataset:
        """Create an empty knowledge base.

        Costs one request; if its response is lost, the knowledge base is looked up by its name.
        `partial_member_list` costs a second one; until then only the creator can see the knowledge
        base. Without `indexing_technique` the first document determines it. The server does not
        prevent parallel creates of one name: 8 made up to 4 knowledge bases (measured on 1.14.2).

        Args:
            name: 1 to 40 characters, unique in the workspace.
            description: at most 400 characters.
            embedding: embedding model for `high_quality`; by default that of the workspace.
            provider: `external` for an external knowledge base, which needs both external ids.
                `external_knowledge_api_id` is shown only in the console.
            summary_index_setting: LLM that writes a summary of each chunk (since 1.12); it cannot
                be changed by `update` (measured on 1.14.2).
            partial_member_list: ids of the accounts that may use the knowledge base. Sets the
                permission `partial_members`.

        Raises:
            ConfigError: the name or the description is too long, or members are combined with
                another permission.
            ConflictError: the name is already in use.
            BadRequestError: `high_quality` without an embedding model, or an unknown provider.
            OutcomeUnknownError: no response arrived, and no such knowledge base exists yet; use
                `find` later to check whether it was created.
            PartialError: the knowledge base was created (the item of `done`), but its members
                were not set.
        """
        permission = _resolve_permission(permission, partial_member_list)
        request = CreateDataset(
            name=check_length(name, "name", 1, MAX_NAME),
            description=_check_description(description),
            indexing_technique=_parse_technique(indexing_technique),
            permission=Permission(permission) if permission else UNSET,
            embedding_model=embedding.model if embedding else UNSET,
            embedding_model_provider=embedding.provider if embedding else UNSET,
            retrieval_model=validate_retrieval_model(retrieval_model) if retrieval_model else UNSET,
            provider=provider,
            external_knowledge_api_id=external_knowledge_api_id,
            external_knowledge_id=external_knowledge_id,
            summary_index_setting=summary_index_setting,
        )
        created = await recover(
            self._send(catalog.CREATE_DATASET(request)), partial(self._find_created, request)
        )
        if not partial_member_list:
            return created
        try:
            return await self.update(
                created,
                partial_member_list=partial_member_list,
                external_knowledge_id=external_knowledge_id,
                external_knowledge_api_id=external_knowledge_api_id,
            )
        except KnowledgeError as error:
            raise _members_not_set_error(created, error) from error

    async def get(self, dataset_id: Dataset | str) -> Dataset:
        """Return one knowledge base. Costs one request.

        Raises:
            NotFoundError: the knowledge base does not exist.
            ForbiddenError: it belongs to another workspace (up to 1.12).
        """
        return await self._send(catalog.GET_DATASET.call(dataset_id=get_dataset_id(dataset_id)))

    async def find(self, name: str) -> Dataset | None:
        """Return the knowledge base with exactly this name, or None.

        Includes private knowledge bases of other members. Costs one request per 100 knowledge
        bases whose names contain `name`.
        """
        check_unicode(name, "name")
        async for dataset in self.iter(keyword=name, include_all=True):
            if dataset.name == name:
                return dataset
        return None

    async def list(
        self,
        *,
        page: int = 1,
        limit: int = 20,
        keyword: str | Unset = UNSET,
        tag_ids: Sequence[str] | Unset = UNSET,
        include_all: bool | Unset = UNSET,
    ) -> Page[Dataset]:
        """Return one page of knowledge bases, newest first. Costs one request.

        Args:
            limit: number of rows, at most 100.
            keyword: text that the name must contain, ignoring case.
            tag_ids: return only knowledge bases with one of these tags. Version 1.12.1 rejects
                it; use `iter`.
            include_all: include private knowledge bases of other members.

        Raises:
            ConfigError: `tag_ids` is a single string.
        """
        request = ListDatasets(
            page=page,
            limit=check_page(page, limit),
            keyword=keyword,
            tag_ids=_check_tag_ids(tag_ids),
            include_all=include_all,
        )
        return await self._send(catalog.LIST_DATASETS(request))

    def iter(
        self,
        *,
        keyword: str | Unset = UNSET,
        tag_ids: Sequence[str] | Unset = UNSET,
        include_all: bool | Unset = UNSET,
    ) -> Pager[Dataset]:
        """Iterate over all knowledge bases, newest first. Costs one request per 100.

        Args:
            tag_ids: return only knowledge bases with one of these tags. The client filters, as
                version 1.12.1 cannot.

        Raises:
            ConfigError: `tag_ids` is a single string.
        """
        query = ListDatasets(keyword=keyword, include_all=include_all)
        wanted = set(_check_tag_ids(tag_ids) or ())
        return Pager(
            partial(self._fetch_page, query),
            lambda row: row.id,
            lambda row: not wanted or any(tag.get("id") in wanted for tag in row.tags or ()),
        )

    async def update(
        self,
        dataset_id: Dataset | str,
        *,
        name: str | Unset = UNSET,
        description: str | Unset | None = UNSET,
        indexing_technique: IndexingTechnique | TechniqueName | Unset = UNSET,
        permission: Permission | PermissionName | Unset = UNSET,
        embedding: ModelRef | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
        partial_member_list: Sequence[str] | Unset = UNSET,
        external_retrieval_model: ExternalRetrieval | Unset = UNSET,
        external_knowledge_id: str | Unset = UNSET,
        external_knowledge_api_id: str | Unset = UNSET,
    ) -> Dataset:
        """Change a knowledge base; omitted arguments stay unchanged. Costs one request.

        Args:
            description: None clears the description.
            indexing_technique: changing it indexes all documents again in the background;
                `high_quality` requires `embedding`.
            embedding: embedding model. Sets `high_quality`: without it, the server stores another
                model but does not embed the documents again.
            partial_member_list: ids of the accounts that may use the knowledge base. Sets the
                permission `partial_members`.
            external_knowledge_id: external knowledge bases require this and
                `external_knowledge_api_id` in every update. By default those of the `Dataset`;
                an id has none.

        Raises:
            ConfigError: a text is too long, the retrieval model is invalid, or members are
                combined with another permission, which would remove them.
            BadRequestError: the name is already in use (since 1.11; older servers allow it).
            NotFoundError: the knowledge base does not exist.
        """
        if embedding and not indexing_technique:
            indexing_technique = IndexingTechnique.HIGH_QUALITY
        permission = _resolve_permission(permission, partial_member_list)
        info = dataset_id.external_knowledge_info if isinstance(dataset_id, Dataset) else None
        if info and fitting.is_external(dataset_id):
            external_knowledge_id = external_knowledge_id or info.external_knowledge_id or UNSET
            external_knowledge_api_id = (
                external_knowledge_api_id or info.external_knowledge_api_id or UNSET
            )
        request = UpdateDataset(
            name=check_length(name, "name", 1, MAX_NAME) if name is not UNSET else UNSET,
            description=_check_description(description) if description else description,
            indexing_technique=_parse_technique(indexing_technique) or UNSET,
            permission=Permission(permission) if permission else UNSET,
            embedding_model=embedding.model if embedding else UNSET,
            embedding_model_provider=embedding.provider if embedding else UNSET,
            retrieval_model=validate_retrieval_model(retrieval_model) if retrieval_model else UNSET,
            partial_member_list=UNSET
            if partial_member_list is UNSET
            else [Member(user_id=user_id) for user_id in partial_member_list],
            external_retrieval_model=external_retrieval_model,
            external_knowledge_id=external_knowledge_id,
            external_knowledge_api_id=external_knowledge_api_id,
        )
        return await self._send(
            catalog.UPDATE_DATASET(request, dataset_id=get_dataset_id(dataset_id))
        )

    async def delete(self, dataset_id: Dataset | str) -> None:
        """Delete a knowledge base and all its documents, even if apps use it.

        Costs one request. The server removes the documents in the background.

        Raises:
            NotFoundError: the knowledge base does not exist.
        """
        await self._send(catalog.DELETE_DATASET.call(dataset_id=get_dataset_id(dataset_id)))

    async def retrieve(
        self,
        dataset_id: Dataset | str,
        query: str,
        *,
        retrieval_model: RetrievalModel | Unset = UNSET,
        method: SearchMethodName | None = None,
        top_k: int | None = None,
        score_threshold: float | None = None,
        filter: MetadataFilter | Condition | None = None,  # noqa: A002 -- the word of users
    ) -> RetrievalResult:
        """Search a knowledge base. Costs one request.

        By default, with the settings stored with the knowledge base; an economy `Dataset` with
        keyword search, its only method. Either pass `retrieval_model`, or single options: the
        others are then those of the `Dataset`, or with `method` 4 passages without a threshold.

        Keyword search has no scores, and since 1.12 no order (measured): the server selects the
        passages with the most words of the query, but returns them in any order with the score 0.
        They are then sorted by the number of different words that they share with the query.

        Args:
            query: 1 to 250 characters.
            retrieval_model: search method and all options.
            method: `semantic`, `full_text`, `hybrid` (weighted: 0.7 for the vectors; needs a
                `Dataset`, for its embedding model) or `keyword` (economy). An id needs it with
                any other option.
            top_k: maximum number of passages.
            score_threshold: minimum score, 0 to 1; not for keyword search.
            filter: condition on the metadata of documents, such as `Field("year") >= 2024`.

        Raises:
            ConfigError: the query is empty or too long, an option is invalid, the options are
                combined with `retrieval_model`, the knowledge base does not support the search
                method, or it is external: the service API does not search these.
            BadRequestError: the search method is not available, or the embedding or reranking
                model failed; the server does not distinguish temporary failures.
        """
        fitting.check_internal(dataset_id)
        if any(option is not None for option in (method, top_k, score_threshold, filter)):
            if retrieval_model:
                raise ConfigError(
                    "retrieval_model cannot be combined with single options of a search.",
                    hint="Set method, top_k, score_threshold and filter in the retrieval_model.",
                )
            retrieval_model = fitting.build_retrieval_model(
                dataset_id, method, top_k, score_threshold, filter
            )
        request = Retrieve(
            query=check_length(query, "query", 1, MAX_QUERY_LENGTH),
            retrieval_model=fitting.resolve_retrieval_model(dataset_id, retrieval_model),
        )
        result = await self._send(catalog.RETRIEVE(request, dataset_id=get_dataset_id(dataset_id)))
        if any(record.score != 0 for record in result.records):
            return result
        return evolve(result, records=_sort_by_shared_words(query, result.records))

    async def _find_created(self, request: CreateDataset) -> Dataset | None:
        """Return the knowledge base that a create without a response made, if it exists."""
        found = await self.find(request.name)
        technique = request.indexing_technique
        if found is None or found.document_count:
            return None
        return found if not technique or found.indexing_technique == technique else None

    async def _fetch_page(self, query: ListDatasets, number: int) -> Page[Dataset]:
        return await self.list(
            page=number, limit=PAGE_SIZE, keyword=query.keyword, include_all=query.include_all
        )


def _sort_by_shared_words(query: str, records: Sequence[Record]) -> Sequence[Record]:
    from dify_kb.rag.tokenize import tokenize  # most programs do not need it

    words = {*tokenize(query)}
    return tuple(
        sorted(
            records, key=lambda record: -len(words.intersection(tokenize(record.segment.content)))
        )
    )


def _members_not_set_error(created: Dataset, error: KnowledgeError) -> PartialError:
    return PartialError(
        f"Dataset {created.name!r} was created without its members: {error.summary}",
        done=[created],
        hint=f"Set them with datasets.update({created.id!r}, partial_member_list=…).",
    )


def _resolve_permission(
    permission: Permission | PermissionName | Unset, members: Sequence[str] | Unset
) -> Permission | PermissionName | Unset:
    """Return the permission, which is `partial_members` if there are members."""
    if not members:
        return permission
    check_not_empty(members, "partial_member_list")
    if permission and permission != Permission.PARTIAL_MEMBERS:
        raise ConfigError(
            f"permission {str(permission)!r} cannot be combined with partial_member_list.",
            hint="Omit permission, or pass 'partial_members'.",
        )
    return Permission.PARTIAL_MEMBERS


def _check_tag_ids(value: Sequence[str] | Unset) -> Sequence[str] | Unset:
    if not value:
        return UNSET
    check_not_empty(value, "tag_ids")
    return list(value)


def _check_description(value: str | Unset) -> str | Unset:
    return check_length(value, "description", 0, MAX_DESCRIPTION) if value else value


def _parse_technique(
    value: IndexingTechnique | TechniqueName | Unset | None,
) -> IndexingTechnique | Unset | None:
    return value if value is None or value is UNSET else IndexingTechnique(value)
