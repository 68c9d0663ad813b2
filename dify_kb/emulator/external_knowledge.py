"""Register and query external knowledge APIs, as the console and apps do (server source)."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.external.dify_requester import (
    DifyRequester,
    InvalidResponseError,
    build_body,
    find_registration_problem,
    parse_records,
    retrieval_url,
)

from .request_context import RequestContext
from .store import ExternalApiRow, ExternalBindingRow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .store import DatasetRow

_MAX_NAME_LENGTH: Final = 40
"""Maximum length of an API's name, in characters."""

_OK: Final = 200


@frozen
class ExternalKnowledge:
    """The registry of external knowledge APIs and the client that queries them."""

    context: RequestContext

    async def register(self, name: str, endpoint: str, api_key: str) -> str:
        """Register an API after probing its endpoint, and return its id.

        Raises:
            ConfigError: Dify would reject the API.
        """
        if not 1 <= len(name) <= _MAX_NAME_LENGTH:
            raise ConfigError(f"Invalid API name {name!r}.", hint="Use 1 to 40 characters.")
        if not endpoint or not api_key:
            raise ConfigError("Endpoint or API key is empty.", hint="Pass both.")
        retrieval_url(endpoint)
        async with _open_session() as session:
            retry_policy = self.context.settings.external_retry
            problem = find_registration_problem(
                await DifyRequester(session, endpoint, api_key, retry_policy).probe()
            )
        if problem is not None:
            raise ConfigError(
                f"Cannot register the API: {problem}.",
                hint=f"Run: dify-kb external check {endpoint}",
            )
        row = ExternalApiRow(str(uuid.uuid4()), name, endpoint, api_key)
        self.context.store.external.add_api(row)
        return row.id

    async def retrieve(
        self,
        dataset_id: str,
        query: str,
        *,
        metadata_condition: Mapping[str, object] | None = None,
        console: bool = False,
    ) -> list[dict[str, Any]]:
        """Query an external dataset with its stored settings, and return the records of an app.

        Args:
            console: query as the console's retrieval test does, which escapes quotes.

        Raises:
            ConfigError: the dataset does not exist or is not bound to an API.
            InvalidResponseError: Dify's retrieval step would fail with the API's response. Up to
                1.8 a status other than 200 means no records instead.
        """
        dataset, binding, api = self._find_binding(dataset_id)
        stored = json.loads(dataset.retrieval_model or "{}")
        threshold = stored.get("score_threshold") if stored.get("score_threshold_enabled") else 0.0
        body = build_body(
            query.replace('"', '\\"') if console else query,
            binding.knowledge_id,
            top_k=stored.get("top_k"),
            score_threshold=threshold or 0.0,
            metadata_condition=metadata_condition,
        )
        async with _open_session() as session:
            requester = DifyRequester(
                session, api.endpoint, api.api_key, self.context.settings.external_retry
            )
            response = await requester.retrieve(body)
        ignores_errors = self.context.profile.quirks.drops_external_errors
        if ignores_errors and not response.is_failed and response.status != _OK:
            return []
        return [_to_passage(record, dataset) for record in parse_records(response)]

    def _find_binding(
        self, dataset_id: str
    ) -> tuple[DatasetRow, ExternalBindingRow, ExternalApiRow]:
        store = self.context.store
        dataset = store.datasets.get(dataset_id)
        binding = store.external.get_binding(dataset_id)
        api = store.external.get_api(binding.api_id) if binding else None
        if dataset is None or binding is None or api is None:
            raise ConfigError(
                f"Dataset {dataset_id} is not bound to an external knowledge API.",
                hint="Create it with provider='external', external_knowledge_api_id and"
                " external_knowledge_id.",
            )
        return dataset, binding, api


def _open_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())


def _to_passage(record: Mapping[str, Any], dataset: DatasetRow) -> dict[str, Any]:
    """Return a record with the metadata that Dify adds, which overrides the API's own."""
    dify_metadata = {
        "score": record.get("score"),
        "title": record.get("title"),
        "dataset_id": dataset.id,
        "dataset_name": dataset.name,
    }
    return {"content": record["content"], "metadata": record["metadata"] | dify_metadata}


__all__ = ["ExternalKnowledge", "InvalidResponseError"]
