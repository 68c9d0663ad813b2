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
"""Characters that the server takes (recordings 026, 028)."""


@frozen
class Datasets:
    """Knowledge bases."""

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

        One request, never repeated when it may have been carried out; with `partial_member_list`
        a second one, before which nobody but its creator sees the base. Without
        `indexing_technique` the first document sets it.

        Args:
            name: 1 to 40 characters, unique in the workspace.
            description: at most 400 characters.
            embedding: of a `high_quality` base; without it the workspace's default model.
            provider: `external` for one that Dify asks elsewhere; then with both ids, of which
                the API's is told by the console only.
            partial_member_list: ids of accounts that may use it, for the permission
                `partial_members`, which goes with it.

        Raises:
            ConfigError: a length that the server does not take, or members with another
                permission.
            ConflictError: the name is taken.
            BadRequestError: `high_quality` without an embedding model, or an unknown provider.
            OutcomeUnknownError: no answer came; `find` tells whether it exists.
            PartialError: it was made, and is the one entry of `done`, but its members were not
                set.
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
        """Fetch one knowledge base. One request.

        Raises:
            NotFoundError: none of this id.
            ForbiddenError: another workspace's (up to 1.12).
        """
        return await self._send(catalog.GET_DATASET.call(dataset_id=get_dataset_id(dataset_id)))

    async def find(self, name: str) -> Dataset | None:
        """Look for the knowledge base of exactly this name, also among others' private ones.

        One request per 100 bases whose names contain it.
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
        """Fetch one page, the newest first. One request.

        Args:
            limit: rows, at most 100: larger pages are cut by the server without saying so.
            keyword: a part of the name, in any case.
            tag_ids: only bases with one of these tags; 1.12.1 refuses it, `iter` does not.
            include_all: also the bases that others keep to themselves.

        Raises:
            ConfigError: `tag_ids` is a single text.
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
        """Go through all knowledge bases, the newest first. One request per 100.

        Args:
            tag_ids: only bases with one of these tags, told apart here, since 1.12.1 cannot.

        Raises:
            ConfigError: `tag_ids` is a single text.
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
        """Change a knowledge base; what is left out stays. One request.

        Args:
            description: None clears it.
            indexing_technique: a change indexes all documents again, later; `high_quality` needs
                `embedding` with it.
            embedding: sent with `high_quality`, since another model without it is stored while
                the documents stay embedded with the old one.
            partial_member_list: ids of accounts, for the permission `partial_members`, which is
                sent with it.
            external_knowledge_id: an external base wants this and `external_knowledge_api_id` on
                every update.

        Raises:
            ConfigError: a length or a search that the server does not take, or members with
                another permission, which would drop them.
            BadRequestError: the name is taken (since 1.11; older servers allow two of a name).
            NotFoundError: none of this id.
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
        """Delete a knowledge base and all its documents, also when apps use it.

        One request. What it held is cleaned up later.

        Raises:
            NotFoundError: none of this id.
        """
        await self._send(catalog.DELETE_DATASET.call(dataset_id=get_dataset_id(dataset_id)))

    async def retrieve(
        self,
        dataset_id: Dataset | str,
        query: str,
        *,
        retrieval_model: RetrievalModel | Unset = UNSET,
    ) -> RetrievalResult:
        """Search a knowledge base. One request.

        Without `retrieval_model` the server uses the one that the base stores; for a `Dataset`
        that is not high-quality this method asks for keyword search, the only one it has.

        Args:
            query: 1 to 250 characters.

        Raises:
            ConfigError: a query that the server does not take.
            BadRequestError: the base has no such search, or the embedding or reranking model
                failed; the server does not tell passing failures from lasting ones.
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
        f"The dataset {created.name!r} was made, but its members were not set: {error.summary}",
        done=[created],
        hint=f"Set them by datasets.update({created.id!r}, partial_member_list=…).",
    )


def _resolve_permission(
    permission: Permission | str | Unset, members: Sequence[str] | Unset
) -> Permission | str | Unset:
    """Take the permission that members go with."""
    if not members:
        return permission
    check_not_empty(members, "partial_member_list")
    if permission and permission != Permission.PARTIAL_MEMBERS:
        raise ConfigError(
            f"permission is {str(permission)!r}, with which the server drops the members.",
            hint="Leave it out, or say partial_members.",
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
