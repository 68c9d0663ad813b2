"""Blocking calls in threads, in batches."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dify_kb.transport.thread_batch import (
    BATCH_SECONDS,
    OPEN_ITERATIONS,
    run_in_batch,
    run_in_thread,
)

WAIT = 60.0
"""Timeout of a thread that waits for another, in seconds."""


async def run_concurrently(functions: list[Callable[[], object]]) -> list[object]:
    """Start all calls at the same time and return their results in order."""
    results: dict[int, object] = {}

    async def ask(number: int) -> None:
        results[number] = await run_in_batch(functions[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(functions)):
            tasks.start_soon(ask, number)
    return [results[number] for number in range(len(functions))]


async def test_calls_run_in_a_thread() -> None:
    assert await run_in_batch(threading.get_ident) != threading.get_ident()


async def test_each_caller_gets_its_own_result() -> None:
    assert await run_concurrently([partial(int, number) for number in range(20)]) == list(range(20))


async def test_simultaneous_calls_share_a_thread_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread switch takes longer than reading a small file."""
    monkeypatch.setattr("dify_kb.transport.thread_batch.BATCH_SECONDS", WAIT)
    monkeypatch.setattr("dify_kb.transport.thread_batch.BATCH_TIMEOUT", WAIT)

    def look() -> int:
        time.sleep(0.001)
        return threading.get_ident()

    assert len(set(await run_concurrently([look] * 8))) == 1


async def test_slow_calls_run_in_parallel() -> None:
    """On a slow disk, sequential reads would take the sum of their times."""
    barrier = threading.Barrier(3)

    def wait() -> int:
        return barrier.wait(WAIT)

    places = await run_concurrently([lambda: time.sleep(2 * BATCH_SECONDS), wait, wait, wait])

    assert sorted(str(place) for place in places[1:]) == ["0", "1", "2"]


async def test_an_error_reaches_only_its_caller() -> None:
    def fail() -> None:
        raise LookupError("mine")

    async def ask() -> None:
        with pytest.raises(LookupError, match="mine"):
            await run_in_batch(fail)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        assert await run_in_batch(len, "abc") == 3


@pytest.mark.parametrize("who", ["first", "second"])
async def test_a_cancelled_caller_leaves_the_others_their_results(who: str) -> None:
    """The first caller runs the batch; its cancellation must not make the others wait forever."""
    scopes = {"first": anyio.CancelScope(), "second": anyio.CancelScope()}
    results: list[str] = []

    async def ask(name: str) -> None:
        with scopes[name]:
            results.append(await run_in_batch(str.upper, name))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "first")
        tasks.start_soon(ask, "second")
        for _ in range(OPEN_ITERATIONS):
            await checkpoint()
        scopes[who].cancel()

    assert results == [name.upper() for name in ("first", "second") if name != who]


def test_each_loop_has_batches_of_its_own() -> None:
    for _ in range(2):
        assert anyio.run(run_in_batch, len, "abc") == 3


@pytest.mark.parametrize("turns", range(OPEN_ITERATIONS + 2))
async def test_a_task_that_asyncio_cancels_leaves_the_others_their_results(turns: int) -> None:
    """asyncio cancels through every shield. If the batch never ran, all its callers would hang."""
    first = asyncio.create_task(run_in_batch(str.upper, "first"))
    second = asyncio.create_task(run_in_batch(str.upper, "second"))
    for _ in range(turns):
        await asyncio.sleep(0)

    first.cancel()

    with anyio.fail_after(WAIT):
        assert await second == "SECOND"
        assert await run_in_batch(str.upper, "third") == "THIRD"


async def test_a_stuck_call_blocks_nobody_else() -> None:
    """For example, a file on a network file system that hangs."""
    release = threading.Event()
    results: list[int] = []

    async def ask(number: int) -> None:
        results.append(await run_in_batch(int, number))

    stuck = asyncio.create_task(run_in_batch(release.wait, WAIT))
    with anyio.fail_after(WAIT / 2):
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(ask, number)
    release.set()

    assert sorted(results) == [0, 1, 2]
    assert await stuck


@pytest.mark.parametrize("place", ["alone", "with others"])
async def test_a_cancelled_caller_does_not_wait_for_a_stuck_call(place: str) -> None:
    release = threading.Event()
    began = time.monotonic()
    with anyio.move_on_after(0.1) as scope:
        if place == "alone":
            await run_in_batch(release.wait, WAIT)
        else:
            await run_concurrently([lambda: 1, lambda: release.wait(WAIT), lambda: 2])

    assert scope.cancelled_caught
    assert time.monotonic() - began < WAIT / 2
    release.set()


ABANDON = """
import threading
import anyio
from dify_kb.transport.thread_batch import run_in_thread

async def main():
    with anyio.move_on_after(0.1):
        await run_in_thread(threading.Event().wait)

anyio.run(main)
print("done", flush=True)
"""


def test_a_read_that_never_returns_does_not_keep_the_process_from_ending() -> None:
    """The threads of anyio and of executors are waited for at exit."""
    ended = subprocess.run(  # noqa: S603 -- this interpreter
        [sys.executable, "-c", ABANDON], capture_output=True, text=True, timeout=60, check=True
    )

    assert ended.stdout == "done\n"


async def test_threads_are_used_again() -> None:
    seen = {await run_in_thread(threading.get_ident) for _ in range(20)}

    assert len(seen) <= 2
    assert threading.get_ident() not in seen


async def test_an_exit_in_a_thread_reaches_the_caller() -> None:
    """Otherwise the thread would end and its caller wait forever."""
    with pytest.raises(SystemExit):
        await run_in_thread(sys.exit)
