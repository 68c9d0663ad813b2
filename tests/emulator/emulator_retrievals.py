"""High-quality bases of a few texts, and what searches in them give."""

from __future__ import annotations

from typing import Any

from emulator_calls import Calls, Reply

from dify_kb.emulator import Settings
from dify_kb.emulator.stand_ins import PROVIDER, RERANKING

TEXT = """the wombat digs a burrow
the quokka smiles at tourists
postgres is a relational database
redis keeps keys in memory"""
LINES: dict[str, object] = {
    "mode": "custom",
    "rules": {"pre_processing_rules": [], "segmentation": {"separator": "\n", "max_tokens": 100}},
}
FAMILY: dict[str, object] = {
    "mode": "hierarchical",
    "rules": {
        "pre_processing_rules": [],
        "segmentation": {"separator": "\n\n", "max_tokens": 400},
        "parent_mode": "paragraph",
        "subchunk_segmentation": {"separator": "\n", "max_tokens": 60},
    },
}
PARENTS = "the wombat digs\nits burrow is deep\n\nthe quokka smiles\nat tourists"
OFFERED = Settings(models=True)
VERSIONS = ["1.4.3", "1.8.1", "1.12.1", "1.16"]
RERANK = {
    "reranking_enable": True,
    "reranking_mode": "reranking_model",
    "reranking_model": {
        "reranking_provider_name": PROVIDER,
        "reranking_model_name": RERANKING,
    },
}


async def good(calls: Calls, *texts: str, **fields: object) -> str:
    """Make a high-quality base of documents `0`, `1`, …, a chunk for each line."""
    dataset = await calls.dataset(indexing_technique="high_quality")
    for number, text in enumerate(texts or (TEXT,)):
        await put(calls, dataset, str(number), text, **fields)
    return dataset


async def put(calls: Calls, dataset: str, name: str, text: str, **fields: object) -> str:
    rule = {"indexing_technique": "high_quality", "process_rule": LINES}
    created = await calls.write(dataset, name, text, **(rule | fields))
    assert (await calls.done(dataset, created))["indexing_status"] == "completed", created.body
    return str(created.body["document"]["id"])


async def family(calls: Calls, text: str = PARENTS, **rules: object) -> tuple[str, str]:
    """Make a base of one document of parents and children; return their path."""
    dataset = await calls.dataset(indexing_technique="high_quality")
    rule: dict[str, Any] = FAMILY | {"rules": {**FAMILY["rules"], **rules}}  # type: ignore[dict-item]  # a mapping
    form = {"doc_form": "hierarchical_model", "process_rule": rule}
    document = await put(calls, dataset, "h.txt", text, **form)
    return dataset, f"/datasets/{dataset}/documents/{document}/segments"


def contents(reply: Reply) -> list[str]:
    return [record["segment"]["content"] for record in reply.body["records"]]


def scores(reply: Reply) -> list[float]:
    return [record["score"] for record in reply.body["records"]]
