"""Blocking work in threads, many pieces a hop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from dify_kb.transport.thread_batch import PATIENCE, TURNS, run_in_batch

WAIT = 5.0
"""Seconds after which a thread gives up waiting for another."""


async def asked(pieces: list[Callable[[], object]]) -> list[object]:
    """Ask for all of them at the same moment; give what they return, by their order."""
    results: dict[int, object] = {}

    async def ask(number: int) -> None:
        results[number] = await run_in_batch(pieces[number])

    async with anyio.create_task_group() as tasks:
        for number in range(len(pieces)):
            tasks.start_soon(ask, number)
    return [results[number] for number in range(len(pieces))]


async def test_work_is_done_in_a_thread() -> None:
    assert await run_in_batch(threading.get_ident) != threading.get_ident()


async def test_each_gets_its_own_result() -> None:
    assert await asked([partial(int, number) for number in range(20)]) == list(range(20))


async def test_work_of_one_moment_shares_a_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hop costs more than reading a file; in hops of their own, each would have its thread."""
    monkeypatch.setattr("dify_kb.transport.thread_batch.PATIENCE", WAIT)

    def look() -> int:
        time.sleep(0.001)
        return threading.get_ident()

    assert len(set(await asked([look] * 8))) == 1


async def test_slow_work_is_done_in_parallel() -> None:
    """On a slow disk one file after another would take as long as all of them."""
    barrier = threading.Barrier(3)

    def wait() -> int:
        return barrier.wait(WAIT)

    places = await asked([lambda: time.sleep(2 * PATIENCE), wait, wait, wait])

    assert sorted(str(place) for place in places[1:]) == ["0", "1", "2"]


async def test_an_error_comes_to_who_asked_alone() -> None:
    def fail() -> None:
        raise LookupError("mine")

    async def ask() -> None:
        with pytest.raises(LookupError, match="mine"):
            await run_in_batch(fail)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        assert await run_in_batch(len, "abc") == 3


@pytest.mark.parametrize("who", ["first", "second"])
async def test_who_is_cancelled_leaves_the_others_their_results(who: str) -> None:
    """The first asks for all: were its hop cancelled with it, the others would wait for ever."""
    scopes = {"first": anyio.CancelScope(), "second": anyio.CancelScope()}
    results: list[str] = []

    async def ask(name: str) -> None:
        with scopes[name]:
            results.append(await run_in_batch(str.upper, name))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "first")
        tasks.start_soon(ask, "second")
        for _ in range(TURNS):
            await checkpoint()
        scopes[who].cancel()

    assert results == [name.upper() for name in ("first", "second") if name != who]


def test_each_loop_has_batches_of_its_own() -> None:
    for _ in range(2):
        assert anyio.run(run_in_batch, len, "abc") == 3
