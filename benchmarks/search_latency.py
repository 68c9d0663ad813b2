"""Measure the search latency of the embedded server with 10,000 chunks, on one core.

`python benchmarks/search_latency.py` loads documents with the word frequencies of a language
(Zipf's law, fixed seed) into a high-quality and an economy dataset, sends queries of three to eight
words over HTTP, one after the other, and prints the times. Limits: a median of 20 ms for full-text
and 60 ms for semantic search.
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import sqlite3
import statistics
import string
import time
from itertools import accumulate
from typing import TYPE_CHECKING

from dify_kb import AsyncClient, ModelRef, ProcessRule, RetrievalModel
from dify_kb.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb import Dataset, TechniqueName

DOCUMENTS, CHUNKS, WORDS = 100, 100, 75
QUESTIONS = 60
SEED = 5
LIMITS = {"full text": 20.0, "semantic": 60.0}


class SyntheticLanguage:
    """An artificial language with random words."""

    def __init__(self, size: int = 20_000) -> None:
        self._random = random.Random(SEED)
        self._words = [
            "".join(self._random.choices(string.ascii_lowercase, k=self._random.randint(2, 11)))
            for _ in range(size)
        ]
        self._weights = [*accumulate(1 / rank for rank in range(1, size + 1))]

    def text(self, words: int) -> str:
        """Return a text of random words."""
        return " ".join(self._random.choices(self._words, cum_weights=self._weights, k=words))

    def question(self) -> str:
        """Return a query of three to eight words."""
        return self.text(self._random.randint(3, 8))


async def main() -> None:
    """Load the documents, send the queries, and print a table."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    language = SyntheticLanguage()
    texts = ["\n".join(language.text(WORDS) for _ in range(CHUNKS)) for _ in range(DOCUMENTS)]
    questions = [language.question() for _ in range(QUESTIONS)]
    print(f"{platform.platform()}, Python {platform.python_version()}, SQLite", end=" ")
    print(f"{sqlite3.sqlite_version}; {DOCUMENTS * CHUNKS:,} chunks of {WORDS} words, one core")
    with Emulator() as emulator:
        async with AsyncClient(emulator.url, emulator.api_key) as client:
            embedding, rerank = await _first_models(client)
            good = await _create_dataset(client, texts, "high_quality")
            plain = await _create_dataset(client, texts, "economy")
            cases = {
                "full text": (good, RetrievalModel.full_text()),
                "semantic": (good, RetrievalModel.semantic()),
                "hybrid, weighted": (good, RetrievalModel.hybrid_weighted(embedding=embedding)),
                "hybrid, reranked": (good, RetrievalModel.hybrid_reranked(rerank=rerank)),
                "keywords": (plain, RetrievalModel.keyword()),
            }
            print(f"{'search':18} {'median':>9} {'p95':>9} {'max':>9} {'limit':>9}")
            for name, (dataset, model) in cases.items():
                _report(
                    name, [await _time_search(client, dataset, ask, model) for ask in questions]
                )


async def _first_models(client: AsyncClient) -> tuple[ModelRef, ModelRef]:
    """Return the first embedding model and the first reranking model."""
    embedding = (await client.workspace.models("text-embedding"))[0]
    rerank = (await client.workspace.models("rerank"))[0]
    return embedding.model_refs()[0], rerank.model_refs()[0]


async def _create_dataset(
    client: AsyncClient, texts: Sequence[str], technique: TechniqueName
) -> Dataset:
    """Create a dataset of the texts, and print how long its indexing took."""
    dataset = await client.datasets.create(str(technique), indexing_technique=technique)
    rule = ProcessRule.custom(max_tokens=4000, chunk_overlap=0)
    started = time.perf_counter()
    created = [
        await client.documents.create_by_text(dataset, f"{number}.txt", text, process_rule=rule)
        for number, text in enumerate(texts)
    ]
    await client.documents.wait(dataset, created)
    seconds = time.perf_counter() - started
    print(
        f"{technique}: loaded in {seconds:.1f} s, {seconds * 1e3 / len(texts) / CHUNKS:.2f} ms",
        end="",
    )
    print(" per chunk")
    return dataset


async def _time_search(
    client: AsyncClient, dataset: Dataset, question: str, model: RetrievalModel
) -> float:
    started = time.perf_counter()
    found = await client.datasets.retrieve(dataset, question, retrieval_model=model)
    seconds = time.perf_counter() - started
    if not found.records:
        raise SystemExit(f"No results for {question!r}.")
    return seconds * 1e3


def _report(name: str, times: Sequence[float]) -> None:
    high = statistics.quantiles(times, n=20)[-1]
    limit = f"{LIMITS[name]:6.0f} ms" if name in LIMITS else ""
    print(
        f"{name:18} {statistics.median(times):6.1f} ms {high:6.1f} ms {max(times):6.1f} ms"
        f" {limit:>9}"
    )


if __name__ == "__main__":
    asyncio.run(main())
