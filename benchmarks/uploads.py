"""What one upload of a small file costs, against aiohttp alone.

`python benchmarks/uploads.py [--uvloop] [--rounds N] [--files N]` sends files of 4 KiB to a server
in another process that answers at once, 8 and 32 in flight, and prints the processor time of an
upload: by a loop of aiohttp's `FormData` over bytes, by aiohttp with the body joined beforehand,
by `documents.create_by_file` and by `load`, its journal included. Fails when a bound is broken.

All take turns in one process, round by round, so that a slow moment of the machine meets all
alike; the processor time is that of this process with all its threads, and the server's is shown
beside it. The loops of aiohttp alone parse the reply as JSON: who uploads needs the document's id.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
from attrs import frozen

from dify_kb import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

SIZE, WARM_UP, AT_ONCE = 4096, 200, (8, 32)
FLOOR = "aiohttp, FormData"
BOUNDS = {"create_by_file(path)": 1.0, "create_by_file(bytes)": 1.0, "load": 1.5}
"""What an upload may cost, as a multiple of the floor."""

MOST = 1e-3
"""Seconds of processor time that an upload of any kind may take: 1,000 a second on a core."""

DATASET = "11111111-1111-4111-8111-111111111111"
DATA = {"indexing_technique": "economy", "doc_form": "text_model"}
SERVER = Path(__file__).with_name("null_server.py")


@frozen
class Spent:
    """What a round took: seconds of processor and of wall time per upload."""

    cpu: float
    wall: float


@frozen(kw_only=True)
class Round:
    """What every variant sends in a round, and where to."""

    url: str
    folder: Path
    at_once: int
    contents: Mapping[Path, bytes]

    @property
    def files(self) -> Sequence[Path]:
        """All files, in order."""
        return list(self.contents)

    @property
    def address(self) -> str:
        """Where files are posted to."""
        return f"{self.url}/datasets/{DATASET}/document/create-by-file"

    async def timed(self, send: Callable[[Path], Awaitable[object]]) -> Spent:
        """Send all files, after a few for the connections' sake."""
        files = self.files
        await self._each(files[:WARM_UP], send)
        cpu, wall = time.process_time(), time.perf_counter()
        await self._each(files, send)
        return self.spent(cpu, wall)

    def spent(self, cpu: float, wall: float) -> Spent:
        """Tell what went by since then, per file."""
        count = len(self.contents)
        return Spent((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)

    async def _each(self, files: Sequence[Path], send: Callable[[Path], Awaitable[object]]) -> None:
        waiting = iter(files)

        async def work() -> None:
            for file in waiting:
                await send(file)

        async with anyio.create_task_group() as workers:
            for _ in range(self.at_once):
                workers.start_soon(work)


async def form_data(this: Round) -> Spent:
    """Let aiohttp write the form, as its documentation does."""
    async with bare() as session:

        async def send(file: Path) -> object:
            form = aiohttp.FormData()
            form.add_field("data", json.dumps(DATA))
            form.add_field("file", this.contents[file], filename=file.name)
            async with session.post(this.address, data=form) as response:
                response.raise_for_status()
                return await response.json()

        return await this.timed(send)


async def joined(this: Round) -> Spent:
    """Write the form by hand: the least that a request of aiohttp costs."""
    async with bare() as session:

        async def send(file: Path) -> object:
            body = b"".join(
                (
                    b'--0a1b\r\nContent-Disposition: form-data; name="data"\r\n\r\n',
                    json.dumps(DATA).encode(),
                    b'\r\n--0a1b\r\nContent-Disposition: form-data; name="file"; filename="',
                    file.name.encode(),
                    b'"\r\nContent-Type: application/octet-stream\r\n\r\n',
                    this.contents[file],
                    b"\r\n--0a1b--\r\n",
                )
            )
            headers = {"Content-Type": "multipart/form-data; boundary=0a1b"}
            async with session.post(this.address, data=body, headers=headers) as response:
                response.raise_for_status()
                return json.loads(await response.read())

        return await this.timed(send)


async def by_path(this: Round) -> Spent:
    """Upload by path: the file is measured and read on the way."""
    async with AsyncClient(this.url, "key", concurrency=this.at_once) as client:

        async def send(file: Path) -> object:
            return await client.documents.create_by_file(
                DATASET, file, indexing_technique="economy", doc_form="text_model"
            )

        return await this.timed(send)


async def by_bytes(this: Round) -> Spent:
    """Upload bytes that are in memory."""
    async with AsyncClient(this.url, "key", concurrency=this.at_once) as client:

        async def send(file: Path) -> object:
            content = this.contents[file]
            return await client.documents.create_by_file(
                DATASET,
                content,
                name=file.name,
                indexing_technique="economy",
                doc_form="text_model",
            )

        return await this.timed(send)


async def loaded(this: Round) -> Spent:
    """Load the folder into a new dataset, with a new journal, and do not wait for the index."""
    async with AsyncClient(this.url, "key", concurrency=this.at_once) as client:
        with tempfile.TemporaryDirectory() as temporary:
            await client.ping()
            cpu, wall = time.process_time(), time.perf_counter()
            report = await client.load(
                str(uuid.uuid4()),
                this.folder,
                wait="accepted",
                concurrency=this.at_once,
                journal=Path(temporary) / "journal.db",
            )
            spent = this.spent(cpu, wall)
    assert report.added == len(this.contents), report  # noqa: S101 -- else it measured something else
    return spent


VARIANTS: Mapping[str, Callable[[Round], Awaitable[Spent]]] = {
    FLOOR: form_data,
    "aiohttp, joined bytes": joined,
    "create_by_file(path)": by_path,
    "create_by_file(bytes)": by_bytes,
    "load": loaded,
}


def main() -> int:
    """Measure, print a table, and fail when a bound is broken."""
    options = arguments()
    within = True
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, {versions(uvloop=options.uvloop)}")
    print(f"{options.rounds} rounds of {options.files} files of {SIZE} bytes by each, in turn")
    with tempfile.TemporaryDirectory() as temporary:
        folder, content = Path(temporary), b"A line of text.\n" * (SIZE // 16)
        contents = {folder / f"{number:05}.txt": content for number in range(options.files)}
        for file in contents:
            file.write_bytes(content)
        for at_once in AT_ONCE:
            with server() as url:
                this = Round(url=url, folder=folder, at_once=at_once, contents=contents)
                found = measured(this, options)
            within = shown(found, at_once) and within
    served = resource.getrusage(resource.RUSAGE_CHILDREN)
    uploads = (options.files * len(VARIANTS) + WARM_UP * 4) * (options.rounds + 1) * len(AT_ONCE)
    print(
        f"the server took {(served.ru_utime + served.ru_stime) / uploads * 1e6:.0f} us of its own"
    )
    return 0 if within else 1


def measured(this: Round, options: argparse.Namespace) -> Mapping[str, Sequence[Spent]]:
    """Run every variant once to warm up, then in turn."""
    spent: dict[str, list[Spent]] = {name: [] for name in VARIANTS}
    for number in range(options.rounds + 1):
        for name, variant in VARIANTS.items():
            gc.collect()
            took = anyio.run(variant, this, backend_options={"use_uvloop": options.uvloop})
            if number:
                spent[name].append(took)
    return spent


def shown(found: Mapping[str, Sequence[Spent]], at_once: int) -> bool:
    """Print the rows of one table; tell whether all is within its bounds."""
    print(f"\n{at_once} in flight: us of processor time per upload")
    print(f"{'':24}{'median':>8}{'least':>8}{'most':>8}{'ratio':>8}{'uploads/s':>11}")
    within = True
    for name, rounds in found.items():
        cpu = [spent.cpu * 1e6 for spent in rounds]
        # Of each round by itself: what slows the machine down slows both sides of a round.
        ratio = statistics.median(
            one.cpu / floor.cpu for one, floor in zip(rounds, found[FLOOR], strict=True)
        )
        rate = 1 / statistics.median(spent.wall for spent in rounds)
        row = f"{statistics.median(cpu):8.0f}{min(cpu):8.0f}{max(cpu):8.0f}{ratio:8.2f}{rate:11.0f}"
        print(f"{name:24}{row}")
        within = within and ratio <= BOUNDS.get(name, ratio)
        within = within and statistics.median(cpu) <= MOST * 1e6
    return within


@asynccontextmanager
async def bare() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session of aiohttp that is limited by its workers alone."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": "Bearer key"}
    ) as session:
        yield session


@contextmanager
def server() -> Iterator[str]:
    """Run the answering server in another process."""
    with subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- it was asked for
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=5000)
    return parser.parse_args()


def versions(*, uvloop: bool) -> str:
    """Name what was measured."""
    names = ["dify-kb", "aiohttp", "anyio", "cattrs", *(["uvloop"] if uvloop else [])]
    python = f"Python {platform.python_version()}"
    return ", ".join([python, *(f"{name} {version(name)}" for name in names)])


if __name__ == "__main__":
    sys.exit(main())
