"""The interface of retrievers: request, record and protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from attrs import field, frozen

from dify_kb.models import MetadataFilter
from dify_kb.rag import matches_filter


@frozen(kw_only=True)
class RetrievalRequest:
    """A validated retrieval request of Dify; missing values have their defaults.

    `query` may exceed 250 characters: Dify's limit does not apply here. `top_k` is at least 1,
    `score_threshold` is 0 to 1, and 0 if disabled in Dify.
    """

    knowledge_id: str
    query: str
    top_k: int = 4
    score_threshold: float = 0.0
    metadata_condition: MetadataFilter | None = None

    def matches(self, metadata: Mapping[str, object]) -> bool:
        """Return whether a record with this metadata meets the condition, by the rules of Dify.

        In addition, `before` and `after` accept ISO dates, in UTC if they have no offset.
        """
        condition = self.metadata_condition
        return condition is None or matches_filter(metadata, condition, parse_dates=True)


@frozen
class RetrievalRecord:
    """A retrieved passage. `score` is 0 to 1; higher is better.

    `title` is the name of the document in Dify's citations. Dify overwrites `score`, `title`,
    `dataset_id` and `dataset_name` in `metadata`, and uses its `document_id` as the id of the
    document.
    """

    content: str
    score: float = field(kw_only=True)
    title: str = field(default="", kw_only=True)
    metadata: Mapping[str, object] = field(factory=dict, kw_only=True)


class Retriever(Protocol):
    """A search to serve; one coroutine is required.

    A retriever may return any number of records in any order: the server applies the metadata
    condition and the threshold, sorts by score and truncates to `top_k`. Optionally, a retriever
    has an attribute `filters_metadata`; True means that it applies the condition itself. A
    retriever that is an asynchronous context manager is open while the server runs.

    Dify times out after five seconds and sends a request up to four times, so a retriever should
    be fast and free of side effects.
    """

    async def retrieve(self, query: RetrievalRequest, /) -> Iterable[RetrievalRecord]:
        """Return passages; an exception is logged and results in status 500."""
        ...
