from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.errors import ConfigError, KnowledgeError, PartialError
from dify_kb.models import (
    MAX_QUERY_LENGTH,
    UNSET,
    CreateDataset,
    Dataset,
    ExternalRetrieval,
    IndexingTechnique,
    ListDatasets,
    Member,
    ModelRef,
    Page,
    Permission,
    RetrievalModel,
    RetrievalResult,
    Retrieve,
    Unset,
    UpdateDataset,
    validate_retrieval_model,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import CallSender

from . import _dataset_defaults as fitting
from ._arguments import check_length, check_not_empty, get_dataset_id
from ._pager import PAGE_SIZE, Pager

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_NAME, MAX_DESCRIPTION = 40, 400
"""Maximum characters that the server accepts (recordings 026, 028)."""


@frozen
class Datasets:
    """The knowledge bases of the workspace."""

    _send: CallSender

    async def create(
        self,
        name: str,
        *,
        description: str | Unset = UNSET,
        indexing_technique: IndexingTechnique | str | Unset | None = UNSET,
        permission: Permission | str | Unset = UNSET,
        embedding: ModelRef | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
        provider: str | Unset = UNSET,
        external_knowledge_api_id: str | Unset = UNSET,
        external_knowledge_id: str | Unset = UNSET,
        partial_member_list: Sequence[str] | Unset = UNSET,
    ) -> Dataset:
        """Create an empty knowledge base.

        Costs one request, not retried if it may have succeeded. `partial_member_list` costs a
        second one; until then only the creator can see the knowledge base. Without
        `indexing_technique` the first document determines it.

        Args:
            name: 1 to 40 characters, unique in the workspace.
            description: at most 400 characters.
            embedding: embedding model for `high_quality`; by default that of the workspace.
            provider: `external` for an external knowledge base, which needs both external ids.
                `external_knowledge_api_id` is shown only in the console.
            partial_member_list: ids of the accounts that may use the knowledge base. Sets the
                permission `partial_members`.

        Raises:
            ConfigError: the name or the description is too long, or members are combined with
                another permission.
            ConflictError: the name is already in use.
            BadRequestError: `high_quality` without an embedding model, or an unknown provider.
            OutcomeUnknownError: no response arrived; use `find` to check whether it was created.
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
        )
        created = await self._send(catalog.CREATE_DATASET(request))
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
            limit=min(limit, PAGE_SIZE),
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
            lambda row: not wanted or any(tag.get("id") in wanted for tag in row.tags),
        )

    async def update(
        self,
        dataset_id: Dataset | str,
        *,
        name: str | Unset = UNSET,
        description: str | Unset | None = UNSET,
        indexing_technique: IndexingTechnique | str | Unset = UNSET,
        permission: Permission | str | Unset = UNSET,
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
                `external_knowledge_api_id` in every update.

        Raises:
            ConfigError: a text is too long, the retrieval model is invalid, or members are
                combined with another permission, which would remove them.
            BadRequestError: the name is already in use (since 1.11; older servers allow it).
            NotFoundError: the knowledge base does not exist.
        """
        if embedding and not indexing_technique:
            indexing_technique = IndexingTechnique.HIGH_QUALITY
        permission = _resolve_permission(permission, partial_member_list)
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
    ) -> RetrievalResult:
        """Search a knowledge base. Costs one request.

        Args:
            query: 1 to 250 characters.
            retrieval_model: search method and options. By default those stored with the knowledge
                base; for an economy `Dataset`, keyword search, its only method.

        Raises:
            ConfigError: the query is empty or too long, or the retrieval model is invalid.
            BadRequestError: the search method is not available, or the embedding or reranking
                model failed; the server does not distinguish temporary failures.
        """
        if retrieval_model:
            validate_retrieval_model(retrieval_model)
        elif isinstance(dataset_id, Dataset):
            retrieval_model = fitting.resolve_retrieval_model(dataset_id)
        request = Retrieve(
            query=check_length(query, "query", 1, MAX_QUERY_LENGTH), retrieval_model=retrieval_model
        )
        return await self._send(catalog.RETRIEVE(request, dataset_id=get_dataset_id(dataset_id)))

    async def _fetch_page(self, query: ListDatasets, number: int) -> Page[Dataset]:
        return await self.list(
            page=number, limit=PAGE_SIZE, keyword=query.keyword, include_all=query.include_all
        )


def _members_not_set_error(created: Dataset, error: KnowledgeError) -> PartialError:
    return PartialError(
        f"Dataset {created.name!r} was created without its members: {error.summary}",
        done=[created],
        hint=f"Set them with datasets.update({created.id!r}, partial_member_list=…).",
    )


def _resolve_permission(
    permission: Permission | str | Unset, members: Sequence[str] | Unset
) -> Permission | str | Unset:
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
    value: IndexingTechnique | str | Unset | None,
) -> IndexingTechnique | Unset | None:
    return value if value is None or value is UNSET else IndexingTechnique(value)
