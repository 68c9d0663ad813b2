"""Cancelled and failing loads, slow consumers, wedged documents: F19, F35, F38, F39."""

from __future__ import annotations

import asyncio
import operator
import os
import random
import threading
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from fault_case import check_next_load, count_outcomes
from invariants import count_needless_creates, count_violations
from load_environment import CREATE, KEY, POLICY, LoadEnvironment, create_environment, wait_until
from result_table import LONG

from dify_kb import AsyncClient, Client, ItemResult, Outcome, Policy
from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.engine.uploader import Uploader
from dify_kb.ingest.journal import open_journal
from dify_kb.ingest.sources.file_content import FileContent
from dify_kb.models import CreatedDocument

SLOW = Settings(create_io=0.02, workers=2, parsing=0.005)
"""Makes a load slow enough to be cancelled at any point."""

MAX_BUFFERED = 40
"""Instead of 256 results, in the test of a slow consumer."""

FAULTS = ["ok x5", "commit-then-reset x2", "503", "late 0.1", "ok x5"] * 20


def count_leftovers() -> tuple[int, int, int]:
    """Return the numbers of tasks, of our threads, and of open files of this process."""
    ours = "dify-kb-journal", "dify-kb-source"
    threads = [one for one in threading.enumerate() if one.name in ours]
    return len(asyncio.all_tasks()), len(threads), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- only the number matters


@pytest.mark.parametrize("seed", range(6 if LONG else 1))
async def test_f39_repeatedly_cancelled_load_succeeds(seed: int, tmp_path: Path) -> None:
    """At random points, combined with faults. Requests in flight may finish."""
    chance = random.Random(seed)
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.plan(CREATE, FAULTS)
            for _ in range(10):
                with anyio.move_on_after(chance.uniform(0, 0.3)):
                    await environment.load()
            await _check_all_loaded(environment)


async def test_f39_load_cancelled_at_any_loop_iteration_succeeds_later(
    tmp_path: Path,
) -> None:
    """Counting loop iterations, not time, also hits points between two close awaits."""
    chance = random.Random(39)
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.plan(CREATE, FAULTS)
            for _ in range(60 if LONG else 8):
                async with anyio.create_task_group() as group:
                    group.start_soon(environment.load)
                    for _ in range(chance.randrange(3000)):
                        await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
            await _check_all_loaded(environment)


@pytest.mark.timeout(1200 if LONG else 60)
async def test_f39_load_cancelled_twice_can_be_repeated_immediately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Web frameworks do this. asyncio cancels even shielded scopes, also during cleanup."""
    monkeypatch.setattr("dify_kb.transport.http_session.KEEP_ALIVE", 0.3)
    chance = random.Random(int(os.environ.get("CHAOS_SEED", "1")))
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(
            emulator, tmp_path, 30, policy=Policy().scaled(0.01)
        ) as environment:
            await environment.load(dry_run=True)
            before = count_leftovers()
            for number in range(1000 if LONG else 24):
                (environment.folder / f"{number % 30:05}.md").write_text(f"the text of {number}")
                task = asyncio.create_task(environment.load())
                for _ in range(2):
                    # During the first milliseconds, while sending, while closing, and anywhere.
                    await asyncio.sleep(chance.choice([0, 0.001, 0.004]) * chance.random())
                    await asyncio.sleep(chance.choice([0, 0.03]) * chance.random())
                    task.cancel()
                await asyncio.wait([task])
                if number % 4 == 0:
                    loaded = await environment.load()
                    assert loaded.report.found == 30
                else:
                    async with open_journal(environment.journal, {}):
                        pass

            with anyio.fail_after(60.0):
                await wait_until(lambda: all(map(operator.le, count_leftovers(), before)))
            async with open_journal(environment.journal, {}):
                pass


@pytest.mark.parametrize("landed", [False, True], ids=["before sending", "after the commit"])
async def test_f19_internal_error_fails_one_file_and_can_be_retried(
    landed: bool,  # noqa: FBT001 -- pytest passes it by name
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a bug in one file the other files continue, and no chunk is duplicated."""
    original = Uploader._create

    async def broken(self: Uploader, file: TrackedFile, content: FileContent) -> CreatedDocument:
        if "3" not in file.planned.name:
            return await original(self, file, content)
        if landed:
            await original(self, file, content)
        raise RuntimeError("a bug")

    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 20) as environment:
            with monkeypatch.context() as patch:
                patch.setattr(Uploader, "_create", broken)
                loaded = await environment.load()

            assert count_outcomes(loaded) == {"added": 18, "failed": 2}
            assert "a bug" in str(loaded.results["00003.md"].reason)
            environment.changed_files += ["00003.md", "00013.md"]
            await check_next_load(environment)


async def _check_all_loaded(environment: LoadEnvironment) -> None:
    loaded = await environment.load()
    counted = count_violations(environment, loaded)
    assert not counted.violations, counted.violations
    assert bool(loaded.report), (loaded.report, list(loaded.report.failures())[:3])
    assert counted.extra == 0
    environment.emulator.faults.clear()
    await check_next_load(environment)


async def test_f39_cancelled_load_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task, thread or open file remains after the grace period for requests."""
    monkeypatch.setattr("dify_kb.transport.http_session.KEEP_ALIVE", 0.3)
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 40) as environment:
            await environment.load(dry_run=True)
            before = count_leftovers()
            for delay in (0.0, 0.05, 0.2):
                began = time.monotonic()
                with anyio.move_on_after(delay):
                    await environment.load()
                assert time.monotonic() - began < delay + POLICY.load_timing.grace_period + 10.0
            # The connection pool closes idle connections a little later.
            tasks, threads, _ = count_leftovers()
            with anyio.fail_after(60.0):
                await wait_until(lambda: count_leftovers()[2] <= before[2])

            assert (tasks, threads) == before[:2]
            await _check_all_loaded(environment)


@pytest.mark.parametrize("taken", [0, 1, 7, 30] if LONG else [7])
async def test_f39_early_break_loses_no_file(tmp_path: Path, taken: int) -> None:
    """`break` ends the load like a cancellation."""
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.plan(CREATE, FAULTS)
            results: list[ItemResult] = []
            async for result in environment.client.load_iter(
                environment.dataset, environment.folder, journal=environment.journal
            ):
                results.append(result)
                if len(results) >= taken:
                    break
            # The event loop closes a generator in a separate task.
            await wait_until(lambda: len(asyncio.all_tasks()) == 1)
            await _check_all_loaded(environment)


async def test_f38_slow_consumer_pauses_sending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that are not consumed must not accumulate; everything else continues."""
    monkeypatch.setattr("dify_kb.ingest.result_iterator.MAX_BUFFERED", MAX_BUFFERED)
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 250) as environment:
            results = environment.client.load_iter(
                environment.dataset,
                environment.folder,
                journal=environment.journal,
                max_unindexed=50,
            )
            taken: dict[str, ItemResult] = {}
            async for result in results:
                if not taken:
                    await anyio.sleep(0.8)
                    assert environment.sends <= MAX_BUFFERED + 50 + 64, "sending was not paused"
                taken[result.key] = result

            assert results.report is not None
            assert len(taken) == results.report.added == 250
            assert not count_needless_creates(emulator.history)


def test_f39_blocking_client_is_usable_after_an_interrupt(tmp_path: Path) -> None:
    """The blocking client runs in a thread other than the main thread."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number:02}.md").write_text(f"text {number}")

    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        emulator.faults.plan(CREATE, FAULTS)
        seen: list[str] = []
        dataset_ids: list[str] = []

        def some() -> None:
            with Client(emulator.url, KEY, policy=POLICY) as client:
                dataset = client.datasets.create("thread", indexing_technique="economy")
                dataset_ids.append(dataset.id)
                for result in client.load_iter(dataset.id, folder):
                    seen.append(result.key)
                    if len(seen) == 10:
                        break

        thread = threading.Thread(target=some)
        thread.start()
        thread.join(15)
        assert not thread.is_alive()
        with Client(emulator.url, KEY, policy=POLICY) as client:
            report = client.load(dataset_ids[0], folder)

        documents = emulator.documents(dataset_ids[0])
        assert bool(report), list(report.failures())
        assert sorted(one.name for one in documents) == [f"{number:02}.md" for number in range(60)]
        assert all(one.chunks == 1 for one in documents)
        assert not count_needless_creates(emulator.history)


async def test_f39_two_loads_of_one_client_do_not_disturb_each_other(tmp_path: Path) -> None:
    """One of the loads is cancelled."""
    with Emulator(api_key=KEY, settings=SLOW) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            other = await environment.client.datasets.create("other", indexing_technique="economy")

            async def cut() -> None:
                with anyio.move_on_after(0.3):
                    await environment.client.load(
                        other, environment.folder, journal=tmp_path / "other.db"
                    )

            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                await environment.load()

            loaded = environment.loads[-1]
            assert count_outcomes(loaded) == {"added": 60}
            assert not count_violations(environment, loaded).violations
            report = await environment.client.load(
                other, environment.folder, journal=tmp_path / "other.db"
            )
            assert bool(report)
            assert len(emulator.documents(other.id)) == 60


async def test_f35_wedged_documents_do_not_block_others(tmp_path: Path) -> None:
    """One in a hundred stays `indexing` forever, as after the kill of a worker."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 100) as environment:
            emulator.faults.indexing(["hang"] * 2, every=50)
            loaded = await environment.load()

            assert count_outcomes(loaded) == {"added": 98, "stalled": 2}
            assert not count_violations(environment, loaded).violations
            assert loaded.lookups < 200
            again = await environment.load()
            assert count_outcomes(again) == {"unchanged": 98, "stalled": 2}
            assert not again.created


async def test_f35_documents_left_by_a_dead_worker_do_not_block_new_files(tmp_path: Path) -> None:
    """A dead worker has lost sixty documents; it has been restarted, and there are new files."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.indexing(["lose"], always=True)
            async with AsyncClient(emulator.url, KEY, policy=POLICY) as client:
                await client.load(
                    environment.dataset,
                    environment.folder,
                    journal=environment.journal,
                    wait="accepted",
                )
            emulator.faults.clear()
            for number in range(5):
                (environment.folder / f"new{number}.md").write_text(f"new {number}")

            loaded = await environment.load()

            assert {key for key, one in loaded.results.items() if one.outcome == "added"} == {
                f"new{number}.md" for number in range(5)
            }


async def test_f35_documents_left_by_a_dead_worker_do_not_fill_the_backlog(tmp_path: Path) -> None:
    """The lost documents exceed the limit of unfinished documents; later they no longer count."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:
            emulator.faults.indexing(["lose"], always=True)
            await environment.load(wait="accepted")
            emulator.faults.clear()
            new = {f"new{number}.md" for number in range(5)}
            for name in new:
                (environment.folder / name).write_text(f"the text of {name}")

            loaded = await environment.load(max_unindexed=10, stall_after=1.4)

            assert count_outcomes(loaded) == {"added": 5, "stalled": 30}
            assert not count_violations(environment, loaded).violations
            assert all(loaded.results[name].outcome is Outcome.ADDED for name in new)
