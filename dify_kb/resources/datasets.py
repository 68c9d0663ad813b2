from __future__ import annotations

from functools import partial

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.models import (
    MAX_QUERY,
    UNSET,
    CreateDataset,
    Dataset,
    IndexingTechnique,
    ListDatasets,
    ModelRef,
    Page,
    Permission,
    RetrievalModel,
    Retrieve,
    Retrieved,
    Unset,
)
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Send

from ._named import dataset_id_of
from ._pager import PAGE, Pager

MAX_NAME, MAX_DESCRIPTION = 40, 400
"""Characters that the server takes (recordings 026, 028)."""


@frozen
class Datasets:
    """Knowledge bases."""

    _send: Send

    async def create(
        self,
        name: str,
        *,
        description: str | Unset = UNSET,
        indexing_technique: IndexingTechnique | str | Unset | None = UNSET,
        permission: Permission | str | Unset = UNSET,
        embedding: ModelRef | Unset = UNSET,
        retrieval_model: RetrievalModel | Unset = UNSET,
    ) -> Dataset:
        """Create an empty knowledge base.

        One request, never repeated when it may have been carried out. Without
        `indexing_technique` the first document sets it.

        Args:
            name: 1 to 40 characters, unique in the workspace.
            description: at most 400 characters.
            embedding: of a `high_quality` base; without it the workspace's default model.

        Raises:
            ConfigError: a length that the server does not take.
            ConflictError: the name is taken.
            BadRequestError: `high_quality` without an embedding model, or an unknown provider.
            OutcomeUnknownError: no answer came; `find` tells whether it exists.
        """
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigError(
                f"name has {len(name)} characters.", hint=f"Choose one of 1 to {MAX_NAME}."
            )
        if description and len(description) > MAX_DESCRIPTION:
            raise ConfigError(
                f"description has {len(description)} characters.",
                hint=f"Keep it to {MAX_DESCRIPTION}.",
            )
        request = CreateDataset(
            name=name,
            description=description,
            indexing_technique=_technique(indexing_technique),
            permission=Permission(permission) if permission else UNSET,
            embedding_model=embedding.model if embedding else UNSET,
            embedding_model_provider=embedding.provider if embedding else UNSET,
            retrieval_model=retrieval_model,
        )
        return await self._send(catalog.CREATE_DATASET(request))

    async def get(self, dataset_id: Dataset | str) -> Dataset:
        """Fetch one knowledge base. One request.

        Raises:
            NotFoundError: none of this id.
            ForbiddenError: another workspace's (up to 1.12).
        """
        return await self._send(catalog.GET_DATASET.at(dataset_id=dataset_id_of(dataset_id)))

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
        include_all: bool | Unset = UNSET,
    ) -> Page[Dataset]:
        """Fetch one page, the newest first. One request.

        Args:
            limit: rows, at most 100: larger pages are cut by the server without saying so.
            keyword: a part of the name, in any case.
            include_all: also the bases that others keep to themselves.
        """
        request = ListDatasets(
            page=page, limit=min(limit, PAGE), keyword=keyword, include_all=include_all
        )
        return await self._send(catalog.LIST_DATASETS(request))

    def iter(
        self, *, keyword: str | Unset = UNSET, include_all: bool | Unset = UNSET
    ) -> Pager[Dataset]:
        """Go through all knowledge bases, the newest first. One request per 100."""
        page = partial(self._numbered, keyword, include_all)
        return Pager(page, lambda dataset: dataset.id)

    async def delete(self, dataset_id: Dataset | str) -> None:
        """Delete a knowledge base and all its documents, also when apps use it.

        One request. What it held is cleaned up later.

        Raises:
            NotFoundError: none of this id.
        """
        await self._send(catalog.DELETE_DATASET.at(dataset_id=dataset_id_of(dataset_id)))

    async def retrieve(
        self,
        dataset_id: Dataset | str,
        query: str,
        *,
        retrieval_model: RetrievalModel | Unset = UNSET,
    ) -> Retrieved:
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
        if not 1 <= len(query) <= MAX_QUERY:
            raise ConfigError(
                f"query has {len(query)} characters.", hint=f"Ask in 1 to {MAX_QUERY}."
            )
        if not retrieval_model and isinstance(dataset_id, Dataset):
            retrieval_model = _fitting(dataset_id)
        request = Retrieve(query=query, retrieval_model=retrieval_model)
        return await self._send(catalog.RETRIEVE(request, dataset_id=dataset_id_of(dataset_id)))

    async def _numbered(
        self,
        keyword: str | Unset,
        include_all: bool | Unset,  # noqa: FBT001 -- the query's own field
        number: int,
    ) -> Page[Dataset]:
        return await self.list(page=number, limit=PAGE, keyword=keyword, include_all=include_all)


def _technique(
    given: IndexingTechnique | str | Unset | None,
) -> IndexingTechnique | Unset | None:
    return given if given is None or given is UNSET else IndexingTechnique(given)


def _fitting(dataset: Dataset) -> RetrievalModel | Unset:
    """An economy base stores semantic search all the same, and then refuses it (recording 750)."""
    if dataset.indexing_technique is IndexingTechnique.HIGH_QUALITY:
        return UNSET
    return RetrievalModel.keyword()
