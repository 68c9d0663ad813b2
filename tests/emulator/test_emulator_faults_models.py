"""Models that fail as planned, and where the server tells so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emulator_client import EmulatorClient, run_emulator

from dify_kb.emulator import Faults
from dify_kb.errors import ConfigError

BUSY = "Rate limit reached for embeddings"
WORD = f"error {BUSY}"


async def index_document(client: EmulatorClient) -> tuple[str, str]:
    """A high-quality base with a document, by their ids."""
    dataset = await client.create_dataset("hq", indexing_technique="high_quality")
    created = await client.create_by_text(
        dataset, "a.txt", "wombats dig", indexing_technique="high_quality"
    )
    await client.wait_until_indexed(dataset, created)
    return dataset, created.body["document"]["id"]


async def test_a_document_fails_with_the_providers_text() -> None:
    async with run_emulator() as client:
        client.emulator.faults.models([WORD])
        dataset = await client.create_dataset("hq", indexing_technique="high_quality")
        created = await client.create_by_text(dataset, "a.txt", indexing_technique="high_quality")
        failed = await client.wait_until_indexed(dataset, created)
        again = await client.wait_until_indexed(
            dataset, await client.create_by_text(dataset, "a.txt")
        )

    assert (failed["indexing_status"], failed["error"]) == ("error", BUSY)
    assert again["indexing_status"] == "completed"
    assert client.emulator.faults.met() == {"models": {WORD: 1}}


async def test_chunk_is_added_with_the_error() -> None:
    """A 200 that is no success (recordings 953, 954)."""
    async with run_emulator() as client:
        one, document = await index_document(client)
        client.emulator.faults.models([WORD])
        path = f"/datasets/{one}/documents/{document}/segments"
        reply = await client.request("POST", path, json={"segments": [{"content": "new"}]})

    (row,) = reply.body["data"]
    assert reply.status == 200
    assert (row["status"], row["enabled"], row["error"]) == ("error", False, BUSY)


@pytest.mark.parametrize(
    ("method", "status"),
    [("semantic_search", 400), ("hybrid_search", 400), ("full_text_search", 200)],
)
async def test_a_search_by_vectors_is_refused_with_the_text(method: str, status: int) -> None:
    """By a 400 whatever the cause (recordings 945 to 949). Words need no model."""
    async with run_emulator() as client:
        one, _ = await index_document(client)
        client.emulator.faults.models([WORD])
        reply = await client.retrieve(one, "wombats", search_method=method)

    assert reply.status == status
    assert ("records" in reply.body) == (status == 200)
    assert status == 200 or (reply.body["code"], reply.body["message"]) == ("invalid_param", BUSY)


async def test_one_model_fails_and_the_other_answers() -> None:
    async with run_emulator() as client:
        one, _ = await index_document(client)
        client.emulator.faults.models([WORD], names="word-*")
        settings: dict[str, Any] = {"search_method": "semantic_search"}
        plain = await client.retrieve(one, "wombats", **settings)
        model = {
            "reranking_provider_name": "dify-kb/emulator/stand-in",
            "reranking_model_name": "word-overlap",
        }
        settings |= {"reranking_enable": True, "reranking_model": model}
        reranked = await client.retrieve(one, "wombats", **settings)
        again = await client.retrieve(one, "wombats", **settings)

    assert [plain.status, reranked.status, again.status] == [200, 400, 200]
    assert reranked.body["message"] == BUSY


async def test_a_provider_without_credentials_is_told_by_its_code() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan("documents.create_by_text", ["provider-not-initialize"])
        reply = await client.create_by_text(dataset, "a.txt")

    assert (reply.status, reply.body["code"]) == (400, "provider_not_initialize")


def test_models_are_planned_in_json_too() -> None:
    faults = Faults()
    plans = {"models": [f"{WORD} x2", {"words": ["error no"], "names": "word-*"}]}

    faults.load(json.loads(json.dumps(plans)))

    assert faults.left() == {"models": [WORD, WORD, "error no"]}
    faults.clear()
    assert faults.left() == {}


@pytest.mark.parametrize("word", ["error", "error ", "hang", "okay", "503"])
def test_words_that_are_no_answer_of_a_model_cannot_be_planned(word: str) -> None:
    with pytest.raises(ConfigError, match="for a call of a model"):
        Faults().models([word])
