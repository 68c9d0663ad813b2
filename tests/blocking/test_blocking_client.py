"""The blocking client in one process."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dify_kb import (
    AttemptEvent,
    Client,
    ConfigError,
    ConflictError,
    KnowledgeError,
    NotFoundError,
    Policy,
    RequestTimeoutError,
    SyncReport,
    Timeout,
)
from dify_kb.blocking._loop_thread import LoopThread
from dify_kb.blocking._make_blocking import make_blocking_iterator
from dify_kb.emulator import Emulator

NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(emulator: Emulator, quick: Policy) -> Iterator[Client]:
    with Client(emulator.url, emulator.api_key, policy=quick) as opened:
        yield opened
    assert [thread for thread in threading.enumerate() if thread.name == "dify-kb"] == []


def count_requests(emulator: Emulator, endpoint: str) -> int:
    return sum(exchange.endpoint == endpoint for exchange in emulator.history)


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until a condition becomes true in another thread."""
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_calls_return_what_the_async_client_returns(client: Client) -> None:
    """Names and results are the same, without `await`."""
    dataset = client.datasets.create("Handbook", indexing_technique="economy")
    client.documents.create_by_text(dataset, "reset.txt", "Hold the button to reset it.")

    assert client.datasets.get(dataset).name == dataset.name
    assert client.datasets.find("nothing") is None
    assert [document.name for document in client.documents.iter(dataset)] == ["reset.txt"]
    assert client.ping().server_version == client.server_version == "1.16"


def test_errors_of_the_server_reach_the_caller(client: Client) -> None:
    """Callers must be able to catch errors of the server at the call."""
    client.datasets.create("taken")

    with pytest.raises(ConflictError):
        client.datasets.create("taken")
    with pytest.raises(NotFoundError):
        client.datasets.get(NOWHERE)


def test_wrong_arguments_are_refused_at_the_call(client: Client) -> None:
    """Arguments are checked at the call, not when the first row is requested."""
    with pytest.raises(TypeError):
        client.datasets.iter("a name")  # type: ignore[call-arg]


def test_a_folder_is_loaded_in_one_call(client: Client, folder: Path) -> None:
    """A load switches threads once; events are reported in the client's thread."""
    for number in range(20):
        (folder / f"{number}.txt").write_text(f"text {number}")
    dataset = client.datasets.create("docs", indexing_technique="economy")
    threads = set()

    report = client.load(
        dataset, folder, on_event=lambda _: threads.add(threading.current_thread().name)
    )

    assert report
    assert report.added == 20
    assert threads == {"dify-kb"}


def test_a_folder_is_synced_with_the_same_results(client: Client, folder: Path) -> None:
    """`sync_iter` yields the results of files; `diff` and `may_delete` see the same keys."""
    for number in range(3):
        (folder / f"{number}.md").write_text(f"text {number}")
    dataset = client.datasets.create("docs", indexing_technique="economy")
    results = client.sync_iter(dataset, folder)
    assert sorted(result.key for result in results) == ["0.md", "1.md", "2.md"]
    (folder / "0.md").unlink()
    (folder / "1.md").rename(folder / "new.md")

    planned = client.diff(dataset, folder)
    kept = client.sync(dataset, folder, may_delete=lambda key: key != "0.md")
    done = client.sync(dataset, folder, may_delete=lambda key: key == "0.md")

    assert isinstance(results.report, SyncReport)
    assert results.report.added == 3
    assert [(one.action.symbol, one.key) for one in planned.changes] == [
        (">", "new.md"),
        ("-", "0.md"),
    ]
    assert (kept.renamed, kept.deleted, kept.kept_back) == (1, 0, 1)
    assert (done.renamed, done.deleted, done.kept_back) == (0, 1, 0)


def test_a_client_opens_with_its_first_call(emulator: Emulator) -> None:
    """Short scripts do not use `with`. An unused client starts no thread."""
    client = Client(emulator.url, emulator.api_key)
    before = [thread.name for thread in threading.enumerate()]
    total = client.datasets.list().total
    client.close()

    assert "dify-kb" not in before
    assert total == 0


def test_the_embedded_server_lives_as_long_as_the_client() -> None:
    """`emulator:` is the first example of the README."""
    before = set(threading.enumerate())
    with Client("emulator:") as client:
        client.datasets.create("first")
        names = [dataset.name for dataset in client.datasets.iter()]

    assert names == ["first"]
    # Threads that read files end a moment later.
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_view_has_its_own_settings_and_the_same_connections(
    emulator: Emulator, client: Client
) -> None:
    """A slow call with other timeouts must not need a second client."""
    emulator.faults.plan("datasets.list", ["stall 120"] * 9)
    view = client.with_options(timeout=Timeout(connect=0.2, read=0.05))

    with pytest.raises(RequestTimeoutError):
        view.datasets.list()
    emulator.faults.clear()
    with pytest.raises(ConfigError, match="with_options"):
        view.close()
    with pytest.raises(ConfigError, match="with_options"), view:
        pass
    assert client.ping().server_version == "1.16"


def test_closing_twice_is_harmless_and_final(client: Client) -> None:
    """`with` around code that calls `close` is common."""
    client.ping()
    client.close()
    client.close()

    with pytest.raises(ConfigError, match="is closed"):
        client.ping()
    with pytest.raises(ConfigError, match="is closed"):
        client.datasets  # noqa: B018 -- reaching for it is the call
    with pytest.raises(ConfigError, match="is closed"), client:
        pass


def test_an_open_client_is_not_opened_again(client: Client) -> None:
    """The end of the inner block would close it under the outer one."""
    with pytest.raises(ConfigError, match="already open"), client:
        pass
    assert client.datasets.list().total == 0


def test_closing_ends_the_calls_of_other_threads(emulator: Emulator, client: Client) -> None:
    """A program that shuts down must not wait for a hanging server."""
    emulator.faults.plan("datasets.list", ["stall 120"])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.with_options(timeout=Timeout()).datasets.list)
        wait_until(lambda: not emulator.faults.left())
        started = time.monotonic()
        client.close()

        with pytest.raises(KnowledgeError, match="closed during the call"):
            call.result()
    assert time.monotonic() - started < 60


def test_stopping_early_fetches_no_further_page(emulator: Emulator, client: Client) -> None:
    """Rows that are not requested must not cost a request."""
    for number in range(101):
        client.datasets.create(f"{number}")

    for dataset in client.datasets.iter():
        assert dataset.name == "100"
        break
    after_one = count_requests(emulator, "datasets.list")
    everything = [dataset.name for dataset in client.datasets.iter()]

    assert after_one == 1
    assert len(everything) == 101
    assert count_requests(emulator, "datasets.list") == 3


def test_an_iterator_outlives_its_client_quietly(emulator: Emulator) -> None:
    """The iterator is collected at any time, when no caller can handle an error."""
    with Client(emulator.url, emulator.api_key) as client:
        client.datasets.create("one")
        rows = client.datasets.iter()
        next(rows)
        other = client.datasets.iter()
    del rows
    gc.collect()

    with pytest.raises(ConfigError, match="is closed"):
        next(other)


def test_eight_threads_share_a_client(client: Client) -> None:
    """A web application has one client and a thread per request."""

    def work(number: int) -> list[str]:
        created = [client.datasets.create(f"{number}-{turn}") for turn in range(10)]
        return [client.datasets.get(dataset).name for dataset in created]

    with ThreadPoolExecutor(8) as pool:
        names = [name for found in pool.map(work, range(8)) for name in found]

    assert sorted(names) == sorted(dataset.name for dataset in client.datasets.iter())
    assert len(set(names)) == 80


def test_threads_that_start_a_client_together_start_it_once(emulator: Emulator) -> None:
    """The first call opens the client; eight first calls may be concurrent."""
    client = Client(emulator.url, emulator.api_key)
    together = threading.Barrier(8)

    def work(_: int) -> int:
        together.wait()
        return client.datasets.list().total

    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(work, range(8)))
    loop_thread = [thread.name for thread in threading.enumerate()].count("dify-kb")
    client.close()

    assert totals == [0] * 8
    assert loop_thread == 1


def test_closing_while_threads_call_leaves_none_waiting(emulator: Emulator) -> None:
    """A call passed to a loop that has just ended would wait forever."""
    for _ in range(10):
        client = Client(emulator.url, emulator.api_key)
        client.ping()

        def work(client: Client = client) -> None:
            while True:
                client.ping()

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(work) for _ in range(8)]
            time.sleep(0.01)
            client.close()
            errors = [call.exception() for call in calls]

        assert {type(error) for error in errors} <= {ConfigError, KnowledgeError}


async def test_blocking_client_works_beside_a_running_event_loop(client: Client) -> None:
    """A notebook runs an event loop in its main thread."""
    await anyio.lowlevel.checkpoint()
    client.datasets.create("from a notebook")

    assert [dataset.name for dataset in client.datasets.iter()] == ["from a notebook"]


def test_a_call_from_a_callback_is_refused(emulator: Emulator) -> None:
    """The call would wait for the thread that it blocks."""
    refused: list[ConfigError] = []

    def callback(_: AttemptEvent) -> None:
        for call in (blocking.ping, lambda: next(blocking.datasets.iter()), blocking.close):
            with pytest.raises(ConfigError) as caught:
                call()
            refused.append(caught.value)

    with Client(emulator.url, emulator.api_key, on_event=callback) as blocking:
        blocking.datasets.list()

    assert len(refused) == 3
    assert all("client's own thread" in str(error) for error in refused)


def test_what_a_callback_raises_reaches_the_caller(emulator: Emulator) -> None:
    """The client remains usable."""
    wrong = [ZeroDivisionError("in the callback")]

    def callback(_: AttemptEvent) -> None:
        if wrong:
            raise wrong.pop()

    with Client(emulator.url, emulator.api_key, on_event=callback) as client:
        with pytest.raises(ZeroDivisionError):
            client.ping()
        assert client.ping().server_version == "1.16"


def test_context_variables_reach_the_loop_thread(emulator: Emulator) -> None:
    """Tracing and logging store request ids in context variables."""
    request = ContextVar("request", default="none")
    seen: list[str] = []

    with Client(emulator.url, emulator.api_key, on_event=lambda _: seen.append(request.get())) as c:
        c.datasets.list()
        request.set("42")
        c.datasets.list()
        list(c.datasets.iter())

    assert seen == ["none", "42", "42"]


def test_a_garbage_collected_client_is_closed(emulator: Emulator) -> None:
    """A function that creates a client per call must not leak threads."""

    def once() -> int:
        return Client(emulator.url, emulator.api_key).datasets.list().total

    once()
    gc.collect()

    assert [thread for thread in threading.enumerate() if thread.name == "dify-kb"] == []


def test_an_error_while_opening_is_raised_and_can_be_retried(tmp_path: Path) -> None:
    """The file of the embedded server may be in use temporarily."""
    path = tmp_path / "server.db"
    second = Client(f"emulator:{path}")
    with Client(f"emulator:{path}"), pytest.raises(ConfigError):
        second.ping()

    with second:
        assert second.ping().server_version == "1.16"


class Opened:
    """A resource that counts how often it was opened and closed."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def __aenter__(self) -> None:
        self.told.append("opened")

    async def __aexit__(self, *_: object) -> None:
        self.told.append("closed")


@contextmanager
def loop_thread() -> Iterator[LoopThread]:
    resource = Opened()
    loop = LoopThread(resource)
    loop.start()
    try:
        yield loop
    finally:
        loop.close()
    assert resource.told == ["opened", "closed"]


class Held:
    """Pages of a generator that occupies a slot, as event streams occupy a connection."""

    def __init__(self) -> None:
        self.limiter = anyio.CapacityLimiter(1)
        self.told: list[str] = []

    async def pages(self) -> AsyncIterator[Sequence[int]]:
        async with self.limiter:
            with anyio.fail_after(5):
                try:
                    for start in (0, 2, 4):
                        yield [start, start + 1]
                        await anyio.lowlevel.checkpoint()
                finally:
                    self.told.append("closing")
                    await anyio.lowlevel.checkpoint()
                    self.told.append("closed")


class Source:
    def __init__(self, held: Held) -> None:
        self.held = held

    def go(self) -> Held:
        return self.held


class Sink:
    go = make_blocking_iterator(Source.go)

    def __init__(self, loop: LoopThread, target: Source) -> None:
        self._loop = loop
        self._target = target


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_pages_are_iterated_in_one_task(rows: int) -> None:
    """Cancel scopes and limiters around a connection require the same task."""
    held = Held()
    with loop_thread() as loop:
        sink = Sink(loop, Source(held))
        found = list(itertools.islice(sink.go(), rows))
        told = list(held.told)
        everything = list(sink.go())

    assert found == list(range(rows))
    assert told == ["closing", "closed"]
    assert everything == list(range(6))
    assert held.limiter.borrowed_tokens == 0


def test_pages_are_closed_with_the_client() -> None:
    """An iterator that is still referenced must not keep its connection open."""
    held = Held()
    with loop_thread() as loop:
        rows = Sink(loop, Source(held)).go()
        next(rows)

    assert held.told == ["closing"]  # its cleanup is cancelled as well, unless it is shielded
    assert held.limiter.borrowed_tokens == 0


def test_an_interrupt_before_the_call_is_known_cancels_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may arrive when the task is running but its future is not returned yet."""
    ended = threading.Event()

    async def forever() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    with loop_thread() as loop:
        portal = loop.start()._portal
        begin = portal.start_task_soon

        def interrupted(work: Callable[..., Awaitable[None]], *args: object) -> None:
            begin(work, *args)
            raise KeyboardInterrupt

        monkeypatch.setattr(portal, "start_task_soon", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run(forever)
        was_cancelled = ended.wait(5)

    assert was_cancelled


def test_the_loop_outlives_a_call_being_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a loop that has ended, the call would neither start nor fail."""

    async def nothing() -> None: ...

    with loop_thread() as loop, ThreadPoolExecutor(1) as pool:
        thread = loop.start()
        hand_over = thread._portal._spawn_task_from_thread
        there: list[bool] = []

        def late(*args: Any) -> None:
            wait_until(thread._stopping.done)
            time.sleep(0.1)
            there.append(thread._thread.is_alive())
            hand_over(*args)

        monkeypatch.setattr(thread._portal, "_spawn_task_from_thread", late)
        call = pool.submit(loop.run, nothing)
        wait_until(lambda: thread._handovers)
        loop.close()

        with pytest.raises(ConfigError, match="is closed"):
            call.result()
    assert there == [True]


def test_a_callback_that_ends_the_loop_is_reported() -> None:
    """`sys.exit` in a callback ends the loop; the next call must not wait forever."""

    async def leave() -> None:
        raise SystemExit(3)

    async def nothing() -> None: ...

    loop = LoopThread(Opened())
    with pytest.raises(SystemExit):
        loop.run(leave)
    wait_until(lambda: not loop.start()._thread.is_alive())
    with pytest.raises(ConfigError, match="is closed"):
        loop.run(nothing)
    loop.close()
