"""A benchmark plan whose rounds end by the number of requests, however slow the machine."""

from __future__ import annotations

from dify_kb.bench.benchmark_plan import BenchmarkPlan, SearchPlan, UploadPlan

TINY = BenchmarkPlan(
    name="tiny",
    uploads=(
        UploadPlan(size=4096, concurrencies=(1, 2, 4), rounds=2, seconds=10, max_documents=60),
        UploadPlan(size=100_000, concurrencies=(1, 2), rounds=1, seconds=10, max_documents=12),
    ),
    documents=8,
    corpus_bytes=200_000,
    indexing_timeout=20,
    search=SearchPlan(top_k=(2,), concurrencies=(1, 2), rounds=1, seconds=10, max_searches=12),
    seconds=50,
)
