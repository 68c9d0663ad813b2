"""Minimal reports."""

from __future__ import annotations

from dify_kb.bench.benchmark_plan import LoadEstimate
from dify_kb.bench.metrics import Latency, Mean, Spread
from dify_kb.bench.results import (
    ConcurrencyLevel,
    Environment,
    IndexingResult,
    InstanceReport,
    ListPageLatency,
    QualityReport,
    QualityRow,
    UploadResult,
)
from dify_kb.bench.saturation_point import SaturationPoint

HERE = Environment(
    when="2026-11-21T12:00:00+00:00",
    server="http://127.0.0.1:5001/v1",
    server_version="1.12.1",
    client="0.1.0",
    python="3.11.7",
    machine="Linux",
    processors=2,
    ping=None,
)

TIMES = Latency(mean=0.08, p50=0.07, p95=0.15, p99=0.2, longest=0.3, count=100)

INSTANCE = InstanceReport(
    where=HERE,
    plan="quick",
    load=LoadEstimate(documents=10, bytes=1000, searches=10, at_once=2, seconds=10.0),
    models=[],
    uploads=[
        UploadResult(
            size=4096,
            levels=[
                ConcurrencyLevel(
                    at_once=2,
                    rate=Spread(median=25.0, low=23.0, high=27.0, count=3),
                    latency=TIMES,
                    errors=0,
                )
            ],
            knee=SaturationPoint(at_once=2, most=26.0, reached=True),
        )
    ],
    indexed=IndexingResult(
        technique="economy",
        documents=5,
        completed=5,
        failed=0,
        unfinished=0,
        bytes=1000,
        chunks=10,
        seconds=10.0,
        rate=0.5,
        available=Spread(median=4.0, low=2.0, high=6.0, count=5),
        queued=None,
        worked=None,
        course=[(10.0, 5)],
    ),
    searches=[],
    listed=[
        ListPageLatency(
            documents=100,
            first=Spread(median=0.01, low=0.01, high=0.01, count=5),
            last=Spread(median=0.01, low=0.01, high=0.01, count=5),
        )
    ],
    troubles=[],
    notes=[],
    requests=100,
    documents=10,
    seconds=10.0,
)

QUALITY = QualityReport(
    where=HERE,
    source="test",
    queries=10,
    documents=5,
    models=[],
    ks=[1, 3],
    rows=[
        QualityRow(
            base="500 characters",
            method="semantic",
            recall={"1": Mean(value=0.5, error=0.1), "3": Mean(value=0.7, error=0.1)},
            mrr=Mean(value=0.6, error=0.1),
            ndcg=Mean(value=0.6, error=0.1),
            missed=2,
            tied=True,
            characters=480.0,
            latency=TIMES,
            ranks=[[1], [1], [1], [1], [1], [2], [3], [None], [None], [2]],
        )
    ],
    asked=[f"question {number}" for number in range(10)],
    drafts=0,
    missed=[],
    notes=[],
    requests=20,
    seconds=3.0,
)
