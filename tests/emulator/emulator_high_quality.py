"""Helpers that create high-quality datasets and read search results."""

from __future__ import annotations

from typing import Any

from emulator_client import EmulatorClient, Response

from dify_kb.emulator import Settings
from dify_kb.emulator.stub_models import PROVIDER_NAME, RERANKING_MODEL

TEXT = """the wombat digs a burrow
the quokka smiles at tourists
postgres is a relational database
redis keeps keys in memory"""
LINE_RULE: dict[str, object] = {
    "mode": "custom",
    "rules": {"pre_processing_rules": [], "segmentation": {"separator": "\n", "max_tokens": 100}},
}
PARENT_CHILD_RULE: dict[str, object] = {
    "mode": "hierarchical",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n\n", "max_tokens": 400},
        "parent_mode": "paragraph",
        "subchunk_segmentation": {"separator": "\n", "max_tokens": 60},
    },
}
PARENT_CHILD_TEXT = "the wombat digs\nits burrow is deep\n\nthe quokka smiles\nat tourists"
WITH_MODELS = Settings(models=True)
VERSIONS = ["1.4.3", "1.8.1", "1.12.1", "1.16"]
RERANK = {
    "reranking_enable": True,
    "reranking_mode": "reranking_model",
    "reranking_model": {
        "reranking_provider_name": PROVIDER_NAME,
        "reranking_model_name": RERANKING_MODEL,
    },
}


async def create_high_quality_dataset(client: EmulatorClient, *texts: str, **fields: object) -> str:
    """Create a high-quality dataset of documents `0`, `1`, …, with a chunk for each line."""
    dataset = await client.create_dataset(indexing_technique="high_quality")
    for number, text in enumerate(texts or (TEXT,)):
        await add_high_quality_document(client, dataset, str(number), text, **fields)
    return dataset


async def add_high_quality_document(
    client: EmulatorClient, dataset: str, name: str, text: str, **fields: object
) -> str:
    rule = {"indexing_technique": "high_quality", "process_rule": LINE_RULE}
    created = await client.create_by_text(dataset, name, text, **(rule | fields))
    assert (await client.wait_until_indexed(dataset, created))["indexing_status"] == "completed", (
        created.body
    )
    return str(created.body["document"]["id"])


async def create_parent_child_dataset(
    client: EmulatorClient, text: str = PARENT_CHILD_TEXT, **rules: object
) -> tuple[str, str]:
    """Create a dataset with one parent-child document; return its id and the segments path."""
    dataset = await client.create_dataset(indexing_technique="high_quality")
    rule: dict[str, Any] = PARENT_CHILD_RULE | {"rules": {**PARENT_CHILD_RULE["rules"], **rules}}  # type: ignore[dict-item]  # a mapping
    form = {"doc_form": "hierarchical_model", "process_rule": rule}
    document = await add_high_quality_document(client, dataset, "h.txt", text, **form)
    return dataset, f"/datasets/{dataset}/documents/{document}/segments"


def record_contents(response: Response) -> list[str]:
    return [record["segment"]["content"] for record in response.body["records"]]


def record_scores(response: Response) -> list[float]:
    return [record["score"] for record in response.body["records"]]
