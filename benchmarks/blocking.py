"""What a blocking call costs over its async twin.

`python benchmarks/blocking.py` sends the same call through both clients, in turns, to a server in
another process that does nothing but answer, and prints the time of a call, the median of several
rounds. Fails when the blocking call costs more on top than is allowed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import socketserver
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

import anyio

from dify_kb import AsyncClient
from dify_kb.sync import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS, CALLS, WARM_UP = 15, 400, 100
MOST = 0.3
"""Milliseconds that a blocking call may cost on top."""

BODY = json.dumps({"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": "1.16"})
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
REPLY = f"{HEAD}\r\n\r\n{BODY}".encode()


def main() -> int:
    """Measure, print a table, and fail when the bound is broken."""
    if sys.argv[1:] == ["--serve"]:
        answer()
        return 0
    with server() as url, Client(url, "key") as client:
        loop = client._loop  # noqa: SLF001 -- the hop by itself is what is measured
        rows: dict[str, Callable[[], float]] = {
            "ping, async": lambda: anyio.run(awaited, url, backend_options=backend()),
            "ping, blocking": lambda: timed(client.ping),
            "the hop alone": lambda: timed(lambda: loop.wait(nothing)),
        }
        for measure in rows.values():
            measure()
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(ROUNDS):
            for name, measure in rows.items():
                times[name].append(measure())
    medians = {name: statistics.median(found) for name, found in times.items()}
    extra = statistics.median(
        blocking - twin
        for blocking, twin in zip(times["ping, blocking"], times["ping, async"], strict=True)
    )
    ratio = medians["ping, blocking"] / medians["ping, async"]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {versions()}")
    print(f"{ROUNDS} rounds of {CALLS} calls one after another; ms per call")
    print(f"{'':16}{'median':>8}{'least':>8}{'most':>8}")
    for name, found in times.items():
        print(f"{name:16}{medians[name]:8.3f}{min(found):8.3f}{max(found):8.3f}")
    print(f"{'on top':16}{extra:8.3f} ms (bound {MOST} ms), {ratio:.2f} times the async call")
    return 0 if extra <= MOST else 1


def timed(call: Callable[[], object]) -> float:
    """Give the milliseconds of one call."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) * 1000 / CALLS


async def awaited(url: str) -> float:
    """Give the same for the async client, connected and warm."""
    async with AsyncClient(url, "key") as client:
        for _ in range(WARM_UP):
            await client.ping()
        started = time.perf_counter()
        for _ in range(CALLS):
            await client.ping()
        return (time.perf_counter() - started) * 1000 / CALLS


async def nothing() -> None:
    """Return at once."""


@contextmanager
def server() -> Iterator[str]:
    """Run the answering server in another process."""
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- it was asked for
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


class Answer(socketserver.StreamRequestHandler):
    """Answers whatever is asked on a connection, until the other side closes it."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer at each empty line: a GET ends with one, and has no other."""
        for line in self.rfile:
            if line == b"\r\n":
                self.wfile.write(REPLY)


def answer() -> None:
    """Print the port and serve until terminated."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as listening:
        print(listening.server_address[1], flush=True)
        listening.serve_forever()


def backend() -> dict[str, bool]:
    """Give both clients the same kind of loop."""
    return {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


def versions() -> str:
    """Name what was measured."""
    names = ["dify-kb", "aiohttp", "anyio", *(["uvloop"] if backend()["use_uvloop"] else [])]
    python = f"Python {platform.python_version()}"
    return ", ".join([python, *(f"{name} {version(name)}" for name in names)])


if __name__ == "__main__":
    sys.exit(main())
