"""Planned faults of models, and where the server reports them."""

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
    """Create a high-quality dataset with a document; return their ids."""
    dataset = await client.create_dataset("hq", indexing_technique="high_quality")
    created = await client.create_by_text(
        dataset, "a.txt", "wombats dig", indexing_technique="high_quality"
    )
    await client.wait_until_indexed(dataset, created)
    return dataset, created.body["document"]["id"]


async def test_document_fails_with_the_providers_message() -> None:
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
    """The status is 200 although embedding failed (recordings 953, 954)."""
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
async def test_vector_search_fails_with_the_providers_message(method: str, status: int) -> None:
    """The status is 400 whatever the cause (recordings 945 to 949). Full text needs no model."""
    async with run_emulator() as client:
        one, _ = await index_document(client)
        client.emulator.faults.models([WORD])
        reply = await client.retrieve(one, "wombats", search_method=method)

    assert reply.status == status
    assert ("records" in reply.body) == (status == 200)
    assert status == 200 or (reply.body["code"], reply.body["message"]) == ("invalid_param", BUSY)


async def test_reranking_model_fails_while_the_embedding_model_works() -> None:
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


async def test_provider_without_credentials_has_its_own_error_code() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        client.emulator.faults.plan("documents.create_by_text", ["provider-not-initialize"])
        reply = await client.create_by_text(dataset, "a.txt")

    assert (reply.status, reply.body["code"]) == (400, "provider_not_initialize")


def test_model_faults_can_be_loaded_from_json() -> None:
    faults = Faults()
    plans = {"models": [f"{WORD} x2", {"words": ["error no"], "names": "word-*"}]}

    faults.load(json.loads(json.dumps(plans)))

    assert faults.left() == {"models": [WORD, WORD, "error no"]}
    faults.clear()
    assert faults.left() == {}


@pytest.mark.parametrize("word", ["error", "error ", "hang", "okay", "503"])
def test_unknown_model_faults_are_rejected(word: str) -> None:
    with pytest.raises(ConfigError, match="Unknown model fault"):
        Faults().models([word])
