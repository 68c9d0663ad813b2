"""A run that takes a second."""

from __future__ import annotations

from dify_kb.bench.benchmark_plan import BenchmarkPlan, SearchPlan, UploadPlan

TINY = BenchmarkPlan(
    name="tiny",
    uploads=(
        UploadPlan(size=4096, concurrencies=(1, 2, 4), rounds=2, seconds=0.06, max_documents=120),
        UploadPlan(size=100_000, concurrencies=(1, 2), rounds=1, seconds=0.06, max_documents=20),
    ),
    documents=8,
    corpus_bytes=200_000,
    indexing_timeout=10,
    search=SearchPlan(top_k=(2,), concurrencies=(1, 2), rounds=1, seconds=0.03, max_searches=40),
    seconds=20,
)
