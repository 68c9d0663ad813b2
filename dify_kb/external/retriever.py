"""What a retriever is asked, and what it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from attrs import field, frozen

from dify_kb.models import MetadataFilter
from dify_kb.rag import matches_filter


@frozen(kw_only=True)
class RetrievalRequest:
    """One question of Dify, checked and with defaults in place of what it leaves out.

    `query` can be long: Dify's limit of 250 characters does not hold here. `top_k` is at least 1,
    `score_threshold` 0 to 1, and 0 where Dify has it switched off.
    """

    knowledge_id: str
    query: str
    top_k: int = 4
    score_threshold: float = 0.0
    metadata_condition: MetadataFilter | None = None

    def matches(self, metadata: Mapping[str, object]) -> bool:
        """Tell whether a record with this metadata may be found, as Dify filters its own bases.

        In addition `before` and `after` take dates as ISO texts, those without a zone as UTC.
        """
        condition = self.metadata_condition
        return condition is None or matches_filter(metadata, condition, parse_dates=True)


@frozen
class RetrievalRecord:
    """A passage that was found. `score` is 0 to 1, a better one greater.

    `title` is the document's name in Dify's citations. Dify writes `score`, `title`, `dataset_id`
    and `dataset_name` into `metadata`, over what stands there, and takes its `document_id` for the
    document's.
    """

    content: str
    score: float = field(kw_only=True)
    title: str = field(default="", kw_only=True)
    metadata: Mapping[str, object] = field(factory=dict, kw_only=True)


class Retriever(Protocol):
    """Any search; one coroutine is enough.

    Cutting to `top_k`, the threshold, the order and the metadata condition are the server's part,
    so that it may return more than is asked for, in any order. Two things are looked for besides:
    an attribute `filters_metadata` that is True says that the condition was applied already; and a
    retriever that is an asynchronous context manager is open for as long as the server runs.

    Dify waits for five seconds and asks up to four times, so that it should be quick and free of
    side effects.
    """

    async def retrieve(self, query: RetrievalRequest, /) -> Iterable[RetrievalRecord]:
        """Find passages; what it raises is logged, and answered with 500."""
        ...
