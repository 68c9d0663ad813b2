"""Servers that are down, never respond, or are not Dify: F1, F2, F18, F41, F42."""

from __future__ import annotations

import resource
import socket
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from attrs import evolve
from fault_case import FaultCase, check_load, check_next_load, count_outcomes
from invariants import find_secrets
from load_environment import (
    CREATE,
    KEY,
    POLICY,
    LoadEnvironment,
    create_environment,
    find_free_port,
    wait_until,
)
from result_table import LONG

from dify_kb import (
    ApiError,
    AsyncClient,
    KnowledgeError,
    Outcome,
    Progress,
    StopReason,
    TransportError,
)
from dify_kb.emulator import Emulator, Settings

LOAD = Settings(create_io=0.02)
"""Makes a load slow enough for an outage in the middle."""


@asynccontextmanager
async def run_meanwhile(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `work` concurrently; cancel it at the end of the block."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        yield
        group.cancel_scope.cancel()


def create_persistent_emulator(root: Path) -> Emulator:
    """Create a server that keeps its port and database over restarts."""
    return Emulator(root / "server.db", port=find_free_port(), api_key=KEY, settings=LOAD)


async def stop_server(emulator: Emulator, seconds: float) -> None:
    """Stop a server, and start it again after a number of seconds."""
    await anyio.to_thread.run_sync(emulator.stop)
    await anyio.sleep(seconds)
    await anyio.to_thread.run_sync(emulator.start)


async def check_all_loaded(
    environment: LoadEnvironment, root: Path, logged: str, *, files: int
) -> None:
    """Check the invariants of the last load, and load once more."""
    check_load(FaultCase(name="", files=files, max_lookups=300), environment, environment.loads[-1])
    await check_next_load(environment)
    assert not find_secrets(environment, root, logged)


async def test_f1_temporary_outage_fails_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with create_persistent_emulator(tmp_path) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:

            async def leave() -> None:
                await wait_until(lambda: environment.sends >= 10)
                await stop_server(emulator, 0.5)

            async with run_meanwhile(leave):
                await environment.load()
            await check_all_loaded(environment, tmp_path, caplog.text, files=60)


async def test_f1_outage_at_the_start_raises(tmp_path: Path) -> None:
    """The load cannot start, so it raises and leaves nothing to repair."""
    with create_persistent_emulator(tmp_path) as emulator:
        async with create_environment(emulator, tmp_path, 5) as environment:
            await anyio.to_thread.run_sync(emulator.stop)
            with pytest.raises(TransportError) as caught:
                await environment.load()
            await anyio.to_thread.run_sync(emulator.start)
            environment.error_texts.append(repr(caught.value) + str(caught.value))
            await environment.load()
            await check_all_loaded(environment, tmp_path, "", files=5)


@pytest.mark.skipif(not LONG, reason="covered by test_chaos_rate_and_concurrency")
async def test_f42_load_survives_repeated_restarts(
    tmp_path: Path,
) -> None:
    with create_persistent_emulator(tmp_path) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:

            async def restart() -> None:
                while True:
                    await anyio.sleep(0.3)
                    await stop_server(emulator, 0.05)

            async with run_meanwhile(restart):
                await environment.load()
            await anyio.to_thread.run_sync(emulator.start)
            await check_all_loaded(environment, tmp_path, "", files=60)


async def test_f18_permanent_outage_stops_the_run(tmp_path: Path) -> None:
    """Exit code 5; running the same command later continues the load."""
    short = evolve(POLICY, load_timing=evolve(POLICY.load_timing, max_outage=0.5))
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 40, policy=short) as environment:
            for endpoint in (CREATE, "datasets.get", "documents.list"):
                ok = ["ok x10"] if endpoint == CREATE else ["ok"]
                emulator.faults.plan(endpoint, [*ok, "502-html x1000"])
            loaded = await environment.load()
            emulator.faults.clear()

            assert loaded.report.stopped is StopReason.OUTAGE
            assert loaded.report.exit_code == 5
            assert count_outcomes(loaded).keys() <= {"added", "pending", "unknown"}
            assert loaded.sends <= 1.2 * 40 + 20
            assert loaded.lookups <= 60
            await check_next_load(environment)


async def test_f18_error_storm_wastes_few_calls(tmp_path: Path) -> None:
    """60 % of the calls fail for a time, then none."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 60) as environment:
            emulator.faults.random(3, {CREATE: {"502-html": 0.3, "503": 0.3}})

            async def calm() -> None:
                await anyio.sleep(0.6)
                emulator.faults.stop_random()

            async with run_meanwhile(calm):
                loaded = await environment.load()

            assert emulator.faults.met()
            assert loaded.sends <= 60 + 100
            check_load(
                FaultCase(name="", files=60, max_sends=200, max_lookups=300), environment, loaded
            )
            await check_next_load(environment)


@contextmanager
def serve_response(answer: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that sends the same response to each request; None never responds."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        closing = threading.Event()
        kept: list[socket.socket] = []

        def serve() -> None:
            while not closing.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connection.settimeout(1.0)
                kept.append(connection)
                if answer is None:
                    continue
                received.append(connection.recv(65536))
                connection.sendall(answer)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", received
        finally:
            closing.set()
            thread.join()
            for connection in kept:
                connection.close()


def build_response(head: str, body: bytes = b"") -> bytes:
    lines = [head, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


async def expect_error(url: str, root: Path, *, proxy: str | None = None) -> KnowledgeError:
    """Load to a server that is not Dify; return the error."""
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs" / "a.md").write_text("text")
    quick = evolve(POLICY, timeout=evolve(POLICY.timeout, read=0.1, connect=0.2))
    async with AsyncClient(url, KEY, policy=quick, proxy=proxy) as client:
        with pytest.raises(KnowledgeError) as caught:
            await client.load("00000000-0000-4000-8000-000000000000", root / "docs")
    said = "".join([repr(caught.value), str(caught.value), *getattr(caught.value, "__notes__", ())])
    assert KEY not in said
    return caught.value


async def test_f2_unresponsive_server_times_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    began = time.monotonic()
    with serve_response(None) as (url, _):
        error = await expect_error(url, tmp_path)

    assert isinstance(error, TransportError)
    assert time.monotonic() - began < 60
    assert KEY not in caplog.text


@pytest.mark.parametrize("status", ["301 Moved Permanently", "308 Permanent Redirect"])
async def test_f41_redirect_to_another_host_does_not_send_the_key(
    tmp_path: Path, status: str
) -> None:
    with (
        serve_response(build_response("HTTP/1.1 200 OK", b"{}")) as (other, received),
        serve_response(build_response(f"HTTP/1.1 {status}\r\nLocation: {other}/v1")) as (url, _),
    ):
        error = await expect_error(url, tmp_path)

    assert not received
    assert other in str(error)


async def test_f41_proxy_authentication_is_reported(tmp_path: Path) -> None:
    with serve_response(build_response("HTTP/1.1 407 Proxy Authentication Required")) as (proxy, _):
        error = await expect_error("http://dify.invalid/v1", tmp_path, proxy=proxy)

    assert "407" in str(error)


async def test_f41_compressed_error_bomb_is_not_fully_read(tmp_path: Path) -> None:
    """200 MB of zeros compressed to 200 KB by gzip."""
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    head = "HTTP/1.1 400 Bad Request\r\nContent-Encoding: gzip\r\nContent-Type: application/json"
    with serve_response(build_response(head, bomb)) as (url, _):
        before = _peak()
        error = await expect_error(url, tmp_path)

    assert isinstance(error, ApiError)
    assert error.status == 400
    assert _peak() - before < 100 * 2**20


def _peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_f1_refused_connections_are_not_retried_in_bursts(tmp_path: Path) -> None:
    """During an outage the server is probed at growing intervals."""
    with create_persistent_emulator(tmp_path) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:
            gone = anyio.Event()

            def cut(event: object) -> None:
                if isinstance(event, Progress) and event.accepted == 10 and not gone.is_set():
                    gone.set()

            async def leave() -> None:
                await gone.wait()
                await stop_server(emulator, 0.6)

            async with run_meanwhile(leave):
                loaded = await environment.load(on_event=cut)

            assert loaded.report.requests <= 2.2 * 30 + 60
            await check_all_loaded(environment, tmp_path, "", files=30)
            assert all(one.outcome is Outcome.ADDED for one in loaded.results.values())
