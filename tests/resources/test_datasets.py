"""Searches and updates of knowledge bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
from attrs import evolve

from dify_kb import AsyncClient, Dataset, Field, RetrievalModel
from dify_kb.errors import ConfigError
from dify_kb.models import (
    Condition,
    CreateDataset,
    ExternalKnowledgeInfo,
    IndexingTechnique,
    MetadataFilter,
    RerankingModel,
    RetrievalResult,
    Retrieve,
    SearchMethod,
    SearchMethodName,
    StoredRetrievalModel,
    SummaryIndexSetting,
    UpdateDataset,
)
from dify_kb.resources import Datasets
from dify_kb.wire import codec
from dify_kb.wire.endpoint import Call

ID = "3f2b9a38-6c1e-4c8e-9a5f-0b7d8f3f2a11"
ECONOMY = Dataset(
    id=ID, name="base", indexing_technique=IndexingTechnique.ECONOMY, provider="vendor"
)
HIGH_QUALITY = Dataset(
    id=ID,
    name="base",
    indexing_technique=IndexingTechnique.HIGH_QUALITY,
    embedding_model="embed",
    embedding_model_provider="acme",
    retrieval_model_dict=StoredRetrievalModel(
        search_method=SearchMethod.HYBRID,
        reranking_enable=True,
        reranking_model=RerankingModel(reranking_model_name="rerank"),
        top_k=6,
        score_threshold_enabled=True,
        score_threshold=0.3,
    ),
)
EXTERNAL = Dataset(
    id=ID,
    name="base",
    provider="external",
    external_knowledge_info=ExternalKnowledgeInfo(
        external_knowledge_id="animals", external_knowledge_api_id="api"
    ),
)


class RecordingSender:
    """A call sender that records the requests and returns one response."""

    server_version: str | None = None

    def __init__(self, response: object) -> None:
        self.bodies: list[Any] = []
        self._response = response

    async def __call__(self, call: Call[Any], /) -> Any:
        self.bodies.append(call.body)
        return self._response


async def send_search(dataset: Dataset | str, **options: Any) -> Mapping[str, Any]:
    """Return the settings that a search sends, as JSON."""
    sender = RecordingSender(RetrievalResult(records=[]))
    await Datasets(cast("Any", sender)).retrieve(dataset, "how?", **options)
    (body,) = sender.bodies
    assert isinstance(body, Retrieve)
    return cast("Mapping[str, Any]", codec.encode_fields(body).get("retrieval_model", {}))


async def test_options_of_a_search_replace_those_stored_with_the_dataset() -> None:
    """A server cannot combine its settings with single options: a missing field is an error."""
    sent = await send_search(HIGH_QUALITY, top_k=8, filter=Field("year") >= 2024)

    assert sent["search_method"] == "hybrid_search"
    assert sent["reranking_model"]["reranking_model_name"] == "rerank"
    assert (sent["top_k"], sent["score_threshold"]) == (8, 0.3)
    assert sent["metadata_filtering_conditions"]["conditions"][0]["name"] == "year"


@pytest.mark.parametrize(
    ("method", "sent_method"),
    [
        ("semantic", "semantic_search"),
        ("full_text", "full_text_search"),
        ("hybrid", "hybrid_search"),
    ],
)
async def test_a_method_of_a_search_is_sent(method: SearchMethodName, sent_method: str) -> None:
    sent = await send_search(HIGH_QUALITY, method=method, score_threshold=0.4)

    assert sent["search_method"] == sent_method
    assert (sent["top_k"], sent["score_threshold_enabled"]) == (4, True)
    assert sent["score_threshold"] == 0.4
    weights = sent.get("weights", {}).get("vector_setting", {})
    assert weights.get("embedding_model_name", "embed") == "embed"


async def test_an_economy_dataset_is_searched_by_keywords() -> None:
    """Servers before 1.12 show `semantic_search` as its setting, which fails."""
    stored = StoredRetrievalModel(search_method=SearchMethod.SEMANTIC, top_k=2)
    dataset = evolve(ECONOMY, retrieval_model_dict=stored)

    assert (await send_search(dataset))["search_method"] == "keyword_search"
    assert (await send_search(dataset, top_k=9))["search_method"] == "keyword_search"
    assert (await send_search(dataset, method="keyword"))["search_method"] == "keyword_search"


async def test_an_id_needs_a_method() -> None:
    """An id costs no hidden request, so that the settings of the dataset are unknown."""
    assert (await send_search(ID, method="semantic", top_k=2))["top_k"] == 2
    assert await send_search(ID) == {}
    with pytest.raises(ConfigError, match="search method is missing"):
        await send_search(ID, top_k=2)
    with pytest.raises(ConfigError, match="embedding model"):
        await send_search(ID, method="hybrid")


REFUSED: Sequence[tuple[Dataset | str, dict[str, Any], str]] = [
    (ECONOMY, {"retrieval_model": RetrievalModel.semantic()}, "does not support"),
    (ECONOMY, {"method": "hybrid"}, "does not support the search method 'hybrid'"),
    (ECONOMY, {"score_threshold": 0.5}, "score threshold"),
    (HIGH_QUALITY, {"method": "keyword"}, "is high_quality"),
    (HIGH_QUALITY, {"method": "vector"}, "Invalid method 'vector'"),
    (HIGH_QUALITY, {"top_k": 0}, "top_k"),
    (HIGH_QUALITY, {"score_threshold": 2}, "score_threshold"),
    (
        HIGH_QUALITY,
        {
            "filter": MetadataFilter(
                conditions=[
                    Condition(name="year", comparison_operator=cast("Any", "is"), value=None)
                ]
            )
        },
        "has no value",
    ),
    (HIGH_QUALITY, {"retrieval_model": RetrievalModel.semantic(), "top_k": 3}, "combined"),
    (EXTERNAL, {}, "is external"),
    (EXTERNAL, {"retrieval_model": RetrievalModel.keyword()}, "is external"),
]


@pytest.mark.parametrize(("dataset", "options", "named"), REFUSED)
async def test_a_search_that_must_fail_is_refused_before_it_is_sent(
    dataset: Dataset | str, options: dict[str, Any], named: str
) -> None:
    """The server returns SQL errors, nothing, or documents that the filter excludes."""
    sender = RecordingSender(None)

    with pytest.raises(ConfigError, match=named) as raised:
        await Datasets(cast("Any", sender)).retrieve(dataset, "how?", **options)

    assert sender.bodies == []
    assert raised.value.hint


async def test_a_filter_that_is_not_a_condition_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="filter must be a MetadataFilter, a Condition or None"):
        await send_search(HIGH_QUALITY, filter="year >= 2024")


def make_result(scores: Sequence[float | None], *texts: str) -> RetrievalResult:
    records = [
        {"segment": {"id": text, "content": text, "document": {"id": "d", "name": "n"}}, "score": s}
        for s, text in zip(scores, texts, strict=True)
    ]
    return codec.decode(RetrievalResult, {"query": {"content": ""}, "records": records})


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ((0.0, 0.0, 0.0, 0.0), ["red green blue", "Green red", "red", "nothing"]),
        ((0.5, 0.4, 0.0, 0.0), None),
        ((None, None, None, None), None),
    ],
)
async def test_results_without_scores_are_sorted_by_shared_words(
    scores: Sequence[float | None], order: Sequence[str] | None
) -> None:
    """Since 1.12, keyword search returns its results in the order of the database (measured)."""
    texts = ["nothing", "red", "red green blue", "Green red"]
    sender = RecordingSender(make_result(scores, *texts))

    found = await Datasets(cast("Any", sender)).retrieve(ECONOMY, "red GREEN blue?")

    assert [record.segment.content for record in found.records] == (order or texts)


async def test_shortcuts_find_the_right_documents(client: AsyncClient) -> None:
    """The whole way, through a server."""
    dataset = await client.datasets.create("Zoo", indexing_technique="high_quality")
    for name, text in (("wombat", "Wombats dig burrows."), ("bat", "Bats fly at night.")):
        created = await client.documents.create_by_text(dataset, name, text)
        await client.documents.wait(dataset, [created])
        await client.metadata.assign_by_name(dataset, {created.document.id: {"animal": name}})
    dataset = await client.datasets.get(dataset)

    for method in ("semantic", "full_text", "hybrid"):
        found = await client.datasets.retrieve(dataset, "burrows", method=method, top_k=1)
        assert [record.segment.document.name for record in found.records] == ["wombat"]
    filtered = await client.datasets.retrieve(
        dataset, "burrows", filter=(Field("animal") == "bat") | (Field("animal") == "cat")
    )
    assert {record.segment.document.name for record in filtered.records} == {"bat"}


async def test_updates_of_an_external_dataset_send_its_ids() -> None:
    """The server rejects each update without both (measured on 1.14.2)."""
    sender = RecordingSender(EXTERNAL)
    datasets = Datasets(cast("Any", sender))

    await datasets.update(EXTERNAL, name="new")
    await datasets.update(EXTERNAL, external_knowledge_id="plants")
    await datasets.update(ECONOMY, name="new")

    assert [codec.encode(cast("UpdateDataset", body)) for body in sender.bodies] == [
        {
            "name": "new",
            "external_knowledge_id": "animals",
            "external_knowledge_api_id": "api",
        },
        {"external_knowledge_id": "plants", "external_knowledge_api_id": "api"},
        {"name": "new"},
    ]


async def test_the_summary_index_is_set_by_a_create() -> None:
    sender = RecordingSender(ECONOMY)
    setting = SummaryIndexSetting(enable=True, model_name="llm", model_provider_name="acme")

    await Datasets(cast("Any", sender)).create("base", summary_index_setting=setting)

    (body,) = cast("Sequence[CreateDataset]", sender.bodies)
    assert codec.encode_fields(body)["summary_index_setting"] == {
        "enable": True,
        "model_name": "llm",
        "model_provider_name": "acme",
        "summary_prompt": None,
    }
