from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import pytest
from attrs import evolve
from bench_plans import TINY

from dify_kb import AsyncClient, Policy, UnauthorizedError
from dify_kb.bench.corpus import corpus
from dify_kb.bench.instance import Instance
from dify_kb.bench.instance_page import instance_page
from dify_kb.bench.plan import Plan
from dify_kb.bench.report import InstanceReport
from dify_kb.bench.stored import dumped
from dify_kb.bench.watch import Step, Tally
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, KnowledgeError, RateLimitedError, ServerError
from dify_kb.wire import codec

CREATE = "documents.create_by_file"


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
async def wide(emulator: Emulator, quick: Policy, tally: Tally) -> AsyncIterator[AsyncClient]:
    """A client that counts, and takes as many requests at once as the plan."""
    async with AsyncClient(
        emulator.url, emulator.api_key, policy=quick, concurrency=4, on_event=tally.see
    ) as opened:
        yield opened


def instance(
    client: AsyncClient, tally: Tally, plan: Plan = TINY, steps: list[Step] | None = None
) -> Instance:
    return Instance(
        client=client,
        plan=plan,
        samples=list(corpus(plan.documents)),
        tally=tally,
        look=0.02,
        tell=(steps if steps is not None else []).append,
    )


async def nothing_is_left(client: AsyncClient) -> bool:
    return [row async for row in client.datasets.iter()] == []


async def test_everything_of_the_plan_is_measured_and_nothing_left(
    wide: AsyncClient, tally: Tally, emulator: Emulator
) -> None:
    steps: list[Step] = []

    report = await instance(wide, tally, steps=steps).measure()

    assert [row.size for row in report.uploads] == [4096, 100_000]
    small = report.uploads[0]
    assert [level.at_once for level in small.levels][:2] == [1, 2]
    for level in small.levels:
        assert level.rate.count == 2
        assert 0 < level.rate.low <= level.rate.median <= level.rate.high
        assert level.latency is not None
        assert 0 < level.latency.p50 <= level.latency.p95 <= level.latency.longest
    assert small.knee is not None
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
    assert await nothing_is_left(wide)

    # No more was done than was announced.
    calls = [exchange.endpoint for exchange in emulator.history]
    assert 0 < calls.count(CREATE) <= report.load.documents
    assert 0 < calls.count("datasets.retrieve") <= report.load.searches
    assert report.load.at_once == 4

    # It survives the way to JSON and back, and makes a page.
    read = codec.decode(InstanceReport, json.loads(dumped(report)))
    assert json.loads(dumped(read)) == json.loads(dumped(report))
    page = instance_page(read)
    assert page.count("<figure>") == 2 * 2 + 1 + 2 + bool(report.listed)
    assert "<script" not in page


async def test_lists_are_measured_as_the_base_grows(wide: AsyncClient, tally: Tally) -> None:
    upload = evolve(TINY.uploads[0], at_once=(1,), rounds=2, seconds=2, most=220)
    plan = evolve(TINY, uploads=(upload,), documents=1)

    report = await instance(wide, tally, plan).measure()

    assert [row.documents for row in report.listed] == sorted(
        row.documents for row in report.listed
    )
    assert len(report.listed) >= 2
    assert all(0 < row.first.low <= row.first.median <= row.first.high for row in report.listed)


async def test_an_economy_base_is_searched_by_keywords(wide: AsyncClient, tally: Tally) -> None:
    run = instance(wide, tally)
    run.technique = "economy"

    report = await run.measure()

    assert [row.method for row in report.searches] == ["keyword"]
    assert report.indexed is not None
    assert report.indexed.technique == "economy"


async def test_an_interrupted_run_leaves_nothing(wide: AsyncClient, tally: Tally) -> None:
    uploading = anyio.Event()
    run = instance(wide, tally)
    run.tell = lambda step: uploading.set() if step.phase == "upload" else None

    async with anyio.create_task_group() as group:
        group.start_soon(run.measure)
        await uploading.wait()
        await anyio.sleep(0.1)
        assert not await nothing_is_left(wide)
        group.cancel_scope.cancel()

    assert await nothing_is_left(wide)


async def test_a_wrong_key_ends_it(emulator: Emulator, quick: Policy, tally: Tally) -> None:
    async with AsyncClient(emulator.url, "dataset-wrong", policy=quick) as client:
        with pytest.raises(UnauthorizedError):
            await instance(client, tally).measure()


async def test_failures_are_counted_and_told(
    wide: AsyncClient, tally: Tally, emulator: Emulator
) -> None:
    emulator.faults.plan(CREATE, ["ok x20", "503", "reset"])

    report = await instance(wide, tally).measure()

    met = {(row.endpoint, row.kind): row.count for row in report.troubles}
    assert met[CREATE, "503"] == 1
    assert sum(met.values()) == 2
    assert sum(level.errors for row in report.uploads for level in row.levels) == 2
    assert emulator.faults.left() == {}
    assert await nothing_is_left(wide)


@pytest.mark.parametrize(
    ("fault", "kind"), [("503 x999", ServerError), ("rate-limit x999", RateLimitedError)]
)
async def test_a_server_that_takes_nothing_is_told(
    wide: AsyncClient, tally: Tally, emulator: Emulator, fault: str, kind: type[KnowledgeError]
) -> None:
    emulator.faults.plan(CREATE, [fault])

    with pytest.raises(kind):
        await instance(wide, tally).measure()

    assert await nothing_is_left(wide)


async def test_the_time_of_a_run_is_kept(
    wide: AsyncClient, tally: Tally, emulator: Emulator
) -> None:
    emulator.faults.indexing(["die"], names="*")
    plan = evolve(TINY, seconds=1.0, indexing=0.4)

    report = await instance(wide, tally, plan).measure()

    assert report.seconds < 10
    assert any("not at their end after 0.4 s" in note for note in report.notes)
    assert await nothing_is_left(wide)


def test_a_plan_can_be_bounded() -> None:
    plan = Plan.full().bounded(4)

    assert plan.load().at_once == 4
    assert plan.uploads[0].at_once == [1, 2, 3, 4]
    with pytest.raises(ConfigError):
        plan.bounded(0)
