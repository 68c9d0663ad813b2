"""Journals that are locked by another load of this process, or of a forked one."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from journal_examples import IDENTITY, intent
from load_examples import LONG

from dify_kb.errors import JournalError
from dify_kb.ingest.journal import journal_database, open_journal
from dify_kb.ingest.journal.lock import RUNNING_TIMEOUT, lock_path

ROUNDS = 1000 if LONG else 60


def count_leaks() -> tuple[int, int]:
    """Count journal threads and open files."""
    threads = [thread for thread in threading.enumerate() if thread.name == "dify-kb-journal"]
    return len(threads), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- numbers


def is_free(path: Path) -> bool:
    """Return whether another process could lock the journal."""
    with lock_path(path).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


async def hold(path: Path, opened: asyncio.Event, cleanup: float) -> None:
    """Keep a journal open until cancelled and, like requests in flight, some seconds longer."""
    async with open_journal(path, IDENTITY) as journal:
        opened.set()
        try:
            await asyncio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(cleanup)
                await journal.record_intent(intent("last.md"))


async def start_holding(path: Path, cleanup: float = 0.0) -> asyncio.Task[None]:
    opened = asyncio.Event()
    task = asyncio.create_task(hold(path, opened, cleanup))
    await opened.wait()
    return task


async def test_opening_waits_for_a_load_that_was_cancelled(tmp_path: Path) -> None:
    """However long its requests take; the event loop is not blocked."""
    path = tmp_path / "journal.db"
    task = await start_holding(path, cleanup=RUNNING_TIMEOUT + 0.3)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    counting = asyncio.create_task(count())
    task.cancel()
    async with open_journal(path, IDENTITY) as journal:
        assert task.done()
        assert journal.files.count_unanswered() == 1
    counting.cancel()

    assert turns > 50


async def test_running_load_holding_the_journal_raises(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    task = await start_holding(path)

    with pytest.raises(JournalError, match="in use by another load of this process"):
        async with open_journal(path, IDENTITY):
            pass

    task.cancel()
    await asyncio.wait([task])
    assert is_free(path)


async def test_ending_load_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def short() -> None:
        async with open_journal(path, IDENTITY):
            opened.set()
            await asyncio.sleep(RUNNING_TIMEOUT / 3)

    opened = asyncio.Event()
    task = asyncio.create_task(short())
    await opened.wait()

    async with open_journal(path, IDENTITY) as journal:
        assert journal.run == 2
    await task


async def test_waiting_loads_acquire_the_lock_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    task = await start_holding(path, cleanup=0.2)
    task.cancel()
    inside = 0

    async def one() -> None:
        nonlocal inside
        async with open_journal(path, IDENTITY):
            inside += 1
            assert inside == 1
            await anyio.lowlevel.checkpoint()
            inside -= 1

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)


async def test_load_that_anyio_cancelled_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    opened = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(hold, path, opened, RUNNING_TIMEOUT + 0.3)
        await opened.wait()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            async with open_journal(path, IDENTITY) as journal:
                assert journal.files.count_unanswered() == 1


async def test_load_in_the_loop_of_another_thread_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    opened = threading.Event()

    async def other() -> None:
        task = await start_holding(path, cleanup=0.3)
        task.cancel()
        opened.set()
        await asyncio.wait([task])

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    await asyncio.to_thread(opened.wait)

    async with open_journal(path, IDENTITY) as journal:
        assert journal.files.count_unanswered() == 1
    thread.join()


async def test_load_of_a_loop_that_was_closed_does_not_hold_the_journal(tmp_path: Path) -> None:
    """Nothing resumes such a load: its journal would stay locked until the process ends."""
    path = tmp_path / "journal.db"
    tasks: list[asyncio.Task[None]] = []

    async def load(opened: asyncio.Event) -> None:
        async with open_journal(path, IDENTITY):
            opened.set()
            await asyncio.sleep(30)

    async def begin() -> None:
        opened = asyncio.Event()
        tasks.append(asyncio.create_task(load(opened)))
        await opened.wait()

    def run() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    async with open_journal(path, IDENTITY) as journal:
        assert journal.run == 2
    tasks[0]._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather does
    del tasks[0]
    gc.collect()


async def test_cancelled_load_stops_waiting_for_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    task = await start_holding(path, cleanup=2.0)
    task.cancel()
    before = count_leaks()[0]

    with anyio.move_on_after(0.1) as scope:
        async with open_journal(path, IDENTITY):
            pass

    assert scope.cancelled_caught
    assert count_leaks()[0] == before
    assert not task.done()
    await asyncio.wait([task])


async def test_links_to_a_journal_share_its_lock(tmp_path: Path) -> None:
    path, link = tmp_path / "journal.db", tmp_path / "link.db"
    link.symlink_to(path)
    task = await start_holding(path)

    with pytest.raises(JournalError, match="another load of this process"):
        async with open_journal(link, IDENTITY):
            pass

    task.cancel()
    await asyncio.wait([task])


def test_forked_process_does_not_wait_for_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It inherits the parent's list of locks, which is no longer updated."""
    monkeypatch.setattr("dify_kb.ingest.journal.lock.RUNNING_TIMEOUT", 60.0)
    path = tmp_path / "journal.db"

    async def try_open() -> str:
        began = time.monotonic()
        try:
            async with open_journal(path, IDENTITY):
                return "opened"
        except JournalError as error:
            return f"{time.monotonic() - began < 30} {error.summary}"

    def child(pipe: int) -> None:
        os.write(pipe, asyncio.run(try_open()).encode())

    async def parent() -> None:
        task = await start_holding(path)
        output = await asyncio.to_thread(run_in_fork, child)
        assert output == (
            f"True The journal {path} is in use by process {os.getpid()} on {os.uname().nodename}."
        )
        task.cancel()
        await asyncio.wait([task])
        assert is_free(path)

    asyncio.run(parent())


def run_in_fork(child: Callable[[int], None]) -> str:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            child(writing)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        output = pipe.read()
    os.waitpid(process, 0)
    return output


async def test_double_cancellation_leaves_no_lock_or_thread(tmp_path: Path) -> None:
    """asyncio cancels through shields: every await of a cleanup may be interrupted."""
    path = tmp_path / "journal.db"
    journal_database.connect_journal(path).close()
    chance = random.Random(11)
    lock_path(path).touch()
    before = count_leaks()

    async def use() -> None:
        async with open_journal(path, IDENTITY) as journal:
            for number in range(3):
                await journal.record_intent(intent(f"{number}.md"))

    async def pause() -> None:
        if chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, 0.008))
        else:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)

    for number in range(ROUNDS):
        task = asyncio.create_task(use())
        for _ in range(2 + number % 2):
            await pause()
            task.cancel()
        await asyncio.wait([task])

        async with open_journal(path, IDENTITY):
            assert not is_free(path)
        assert is_free(path)

    assert count_leaks() == before


async def test_writes_before_a_double_cancellation_are_committed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    task = await start_holding(path)
    async with anyio.create_task_group() as group:
        group.start_soon(asyncio.wait, [task])
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()

    async with open_journal(path, IDENTITY) as journal:
        assert journal.run == 2
