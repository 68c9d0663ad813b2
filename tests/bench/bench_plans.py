"""A run that takes a second."""

from __future__ import annotations

from dify_kb.bench.plan import Plan, Search, Upload

TINY = Plan(
    name="tiny",
    uploads=(
        Upload(size=4096, at_once=(1, 2, 4), rounds=2, seconds=0.06, most=120),
        Upload(size=100_000, at_once=(1, 2), rounds=1, seconds=0.06, most=20),
    ),
    documents=8,
    corpus_bytes=200_000,
    indexing=10,
    search=Search(top_k=(2,), at_once=(1, 2), rounds=1, seconds=0.03, most=40),
    seconds=20,
)
