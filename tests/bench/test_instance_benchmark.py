from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import evolve
from tiny_plan import TINY

from dify_kb import AsyncClient, Policy, UnauthorizedError
from dify_kb.bench.benchmark_plan import BenchmarkPlan
from dify_kb.bench.benchmark_progress import ProgressStep, RequestCounter
from dify_kb.bench.corpus import generate_documents
from dify_kb.bench.instance_benchmark import InstanceBenchmark
from dify_kb.bench.render_instance_report import render_instance_page
from dify_kb.bench.results import InstanceReport, dump_report
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, KnowledgeError, RateLimitedError, ServerError
from dify_kb.wire import codec

CREATE = "documents.create_by_file"
ENDLESS = evolve(
    TINY, uploads=[evolve(TINY.uploads[0], seconds=600, max_documents=1_000_000)], seconds=600
)


@pytest.fixture
def counter() -> RequestCounter:
    return RequestCounter()


@pytest.fixture
async def unlimited_client(
    emulator: Emulator, quick: Policy, counter: RequestCounter
) -> AsyncIterator[AsyncClient]:
    """A client that counts its requests and allows the concurrency of the plan."""
    async with AsyncClient(
        emulator.url, emulator.api_key, policy=quick, concurrency=4, on_event=counter.record
    ) as opened:
        yield opened


def instance_benchmark(
    client: AsyncClient,
    counter: RequestCounter,
    plan: BenchmarkPlan = TINY,
    steps: list[ProgressStep] | None = None,
) -> InstanceBenchmark:
    return InstanceBenchmark(
        client=client,
        plan=plan,
        samples=list(generate_documents(plan.documents)),
        counter=counter,
        poll_interval=0.02,
        on_progress=(steps if steps is not None else []).append,
    )


async def has_no_datasets(client: AsyncClient) -> bool:
    return [row async for row in client.datasets.iter()] == []


async def test_whole_plan_is_measured_and_datasets_are_deleted(
    unlimited_client: AsyncClient, counter: RequestCounter, emulator: Emulator
) -> None:
    steps: list[ProgressStep] = []

    report = await instance_benchmark(unlimited_client, counter, steps=steps).run()

    assert [row.size for row in report.uploads] == [4096, 100_000]
    small = report.uploads[0]
    assert [level.at_once for level in small.levels][:2] == [1, 2]
    for level in small.levels:
        assert level.rate.count == 2
        assert 0 < level.rate.low <= level.rate.median <= level.rate.high
        assert level.latency is not None
        assert 0 < level.latency.p50 <= level.latency.p95 <= level.latency.longest
    assert {row.method for row in report.searches} == {
        "semantic",
        "full text",
        "hybrid 0.7",
        "semantic, reranked",
        "hybrid, reranked",
    }
    found = report.indexed
    assert found is not None
    assert (found.documents, found.completed, found.failed, found.unfinished) == (8, 8, 0, 0)
    assert found.chunks >= 8
    assert found.course[-1][1] == 8
    assert found.available is not None
    assert found.queued is not None
    assert found.worked is not None
    assert report.troubles == []
    assert report.notes == []
    assert report.where.server_version == "1.16"
    assert {step.phase for step in steps} == {"start", "indexing", "retrieval", "upload", "cleanup"}
    assert await has_no_datasets(unlimited_client)

    # The announced load is not exceeded.
    calls = [exchange.endpoint for exchange in emulator.history]
    assert 0 < calls.count(CREATE) <= report.load.documents
    assert 0 < calls.count("datasets.retrieve") <= report.load.searches
    assert report.load.at_once == 4

    # The report survives a round trip through JSON and renders as a page.
    read = codec.decode(InstanceReport, json.loads(dump_report(report)))
    assert json.loads(dump_report(read)) == json.loads(dump_report(report))
    page = render_instance_page(read)
    assert page.count("<figure>") == 2 * 2 + 1 + 2 + bool(report.listed)
    assert page.count("<script") == 1


async def test_list_latency_is_measured_as_the_dataset_grows(
    unlimited_client: AsyncClient, counter: RequestCounter
) -> None:
    upload = evolve(TINY.uploads[0], concurrencies=(1,), rounds=2, seconds=20, max_documents=220)
    plan = evolve(TINY, uploads=(upload,), documents=1)

    report = await instance_benchmark(unlimited_client, counter, plan).run()

    assert [row.documents for row in report.listed] == [110, 220]
    assert all(0 < row.first.low <= row.first.median <= row.first.high for row in report.listed)


async def test_economy_dataset_is_searched_by_keywords(
    unlimited_client: AsyncClient, counter: RequestCounter
) -> None:
    run = instance_benchmark(unlimited_client, counter)
    run.technique = "economy"

    report = await run.run()

    assert [row.method for row in report.searches] == ["keyword"]
    assert report.indexed is not None
    assert report.indexed.technique == "economy"


async def test_interrupted_run_leaves_no_dataset(
    unlimited_client: AsyncClient, counter: RequestCounter
) -> None:
    uploading = anyio.Event()
    run = instance_benchmark(unlimited_client, counter, ENDLESS)
    run.on_progress = lambda step: uploading.set() if step.phase == "upload" else None

    async with anyio.create_task_group() as group:
        group.start_soon(run.run)
        await uploading.wait()
        await anyio.sleep(0.1)
        assert not await has_no_datasets(unlimited_client)
        group.cancel_scope.cancel()

    assert await has_no_datasets(unlimited_client)


async def test_wrong_api_key_ends_the_run(
    emulator: Emulator, quick: Policy, counter: RequestCounter
) -> None:
    async with AsyncClient(emulator.url, "dataset-wrong", policy=quick) as client:
        with pytest.raises(UnauthorizedError):
            await instance_benchmark(client, counter).run()


async def test_failures_are_counted_and_reported(
    unlimited_client: AsyncClient, counter: RequestCounter, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["ok x20", "503", "reset"])

    report = await instance_benchmark(unlimited_client, counter).run()

    errors = {(row.endpoint, row.kind): row.count for row in report.troubles}
    assert errors[CREATE, "503"] == 1
    assert sum(errors.values()) == 2
    assert sum(level.errors for row in report.uploads for level in row.levels) == 2
    assert emulator.faults.left() == {}
    assert await has_no_datasets(unlimited_client)


@pytest.mark.parametrize(
    ("fault", "kind"), [("503 x999", ServerError), ("rate-limit x999", RateLimitedError)]
)
async def test_run_fails_when_no_upload_succeeds(
    unlimited_client: AsyncClient,
    counter: RequestCounter,
    emulator: Emulator,
    fault: str,
    kind: type[KnowledgeError],
) -> None:
    emulator.faults.plan(CREATE, [fault])

    with pytest.raises(kind):
        await instance_benchmark(unlimited_client, counter).run()

    assert await has_no_datasets(unlimited_client)


async def test_time_limit_of_a_run_is_kept(
    unlimited_client: AsyncClient, counter: RequestCounter, emulator: Emulator
) -> None:
    emulator.faults.indexing(["die"], names="*")
    plan = evolve(ENDLESS, seconds=1.0, indexing_timeout=0.4)

    report = await instance_benchmark(unlimited_client, counter, plan).run()

    assert report.seconds < 30
    assert any("unfinished after 0.4 s" in note for note in report.notes)
    assert await has_no_datasets(unlimited_client)


def test_plan_concurrency_can_be_limited() -> None:
    plan = BenchmarkPlan.full().with_max_concurrency(4)

    assert plan.estimate_load().at_once == 4
    assert plan.uploads[0].concurrencies == [1, 2, 3, 4]
    with pytest.raises(ConfigError):
        plan.with_max_concurrency(0)
