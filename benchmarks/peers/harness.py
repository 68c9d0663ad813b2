"""What every way of uploading is measured with, in an environment of its own: stdlib alone.

A script beside this one names its ways and hands them to `main`. `python SCRIPT WAY JOB`, the job
as JSON, sends the files of a folder, some beforehand to warm up, and prints a `JobCost` as JSON.
`python SCRIPT WAY --decode FILE` decodes a page of the list instead, and tells how many seconds it
takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

REQUEST_DATA = {
    "indexing_technique": "economy",
    "doc_form": "text_model",
    "process_rule": {"mode": "automatic"},
}
LAG_INTERVAL = 0.005
"""Seconds between two looks at how late the event loop is."""

DECODING_SECONDS = 1.0
"""Seconds for which a page is decoded again and again."""


@dataclass(frozen=True)
class Job:
    """What to send and how: `held` files are in memory beforehand, where a way takes bytes.

    No more files are begun once `seconds` have gone by. With `lag`, the event loop is watched.
    """

    url: str
    folder: str
    warm_up: str
    at_once: int
    seconds: float = 1e9
    held: bool = False
    lag: bool = False
    dataset: str = "11111111-1111-4111-8111-111111111111"
    key: str = "key"
    journal: str = ""
    uvloop: bool = False
    _contents: dict[Path, bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def server_url(self) -> str:
        """The URL without `/v1`."""
        return self.url.removesuffix("/v1")

    @property
    def upload_url(self) -> str:
        """Where files are posted to."""
        return f"{self.url}/datasets/{self.dataset}/document/create-by-file"

    def read_content(self, file: Path) -> bytes:
        """Give a file's bytes."""
        return self._contents[file] if self.held else file.read_bytes()

    @contextlib.contextmanager
    def open_source(self, file: Path) -> Iterator[bytes | BinaryIO]:
        """Give what libraries take: bytes that are held, else the file, opened."""
        if self.held:
            yield self._contents[file]
            return
        with file.open("rb") as stream:
            yield stream

    def list_files(self, folder: str) -> Sequence[Path]:
        """List the files of a folder, and hold them if that is asked for."""
        found = sorted(Path(folder).iterdir())
        if self.held:
            self._contents.update((file, file.read_bytes()) for file in found)
        return found


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """What a job took: seconds of processor, wall and server time, and bytes resident at most."""

    uploads: int
    cpu: float
    wall: float
    server: float
    resident: int
    requests: int | None = None
    lags: Sequence[float] = ()


SendFunction = Callable[[Path], Any]
UploadFunction = Callable[[Job], JobCost]
DecodeFunction = Callable[[bytes], Any]


class Meter:
    """Notes what went by since it was made."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._server = _server_cpu_seconds(job)
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        self._until = self._wall + job.seconds
        self._uploads = 0

    def iter_files(self, files: Sequence[Path]) -> Iterator[Path]:
        """Hand out the files one by one, as long as there is time."""
        for file in files:
            if time.perf_counter() >= self._until:
                return
            self._uploads += 1
            yield file

    def finish(
        self,
        lags: Sequence[float] = (),
        uploads: int | None = None,
        requests: int | None = None,
    ) -> JobCost:
        """Sum up; uploads are counted where `iter_files` handed them out."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return JobCost(
            uploads=self._uploads if uploads is None else uploads,
            cpu=cpu,
            wall=wall,
            server=_server_cpu_seconds(self._job) - self._server,
            resident=_max_resident_bytes(),
            requests=requests,
            lags=lags,
        )


def run_in_tasks(
    open_sender: Callable[[Job], AbstractAsyncContextManager[SendFunction]],
) -> UploadFunction:
    """Send from as many tasks as are in flight."""

    async def run(job: Job) -> JobCost:
        warm_up, files = job.list_files(job.warm_up), job.list_files(job.folder)
        async with open_sender(job) as send:

            async def work(waiting: Iterator[Path]) -> None:
                for file in waiting:
                    await send(file)

            async def all_of(waiting: Iterator[Path]) -> None:
                await asyncio.gather(*(work(waiting) for _ in range(job.at_once)))

            await all_of(iter(warm_up))
            meter = Meter(job)
            async with measure_lag(job) as lags:
                await all_of(meter.iter_files(files))
            return meter.finish(lags)

    return lambda job: run_loop(job, run)


def run_loop(job: Job, run: Callable[[Job], Any]) -> Any:
    """Run a coroutine function on the loop that the job names."""
    factory = None
    if job.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run(job))


@contextlib.asynccontextmanager
async def measure_lag(job: Job) -> Any:
    """Note how late the loop comes to a task that wants to run, in seconds."""
    lags: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL)
            lags.append(time.perf_counter() - began - LAG_INTERVAL)

    task = asyncio.create_task(watch()) if job.lag else None
    yield lags
    if task is not None:
        task.cancel()


def run_in_threads(
    open_sender: Callable[[Job], AbstractContextManager[SendFunction]],
) -> UploadFunction:
    """Send from as many threads as are in flight."""

    def run(job: Job) -> JobCost:
        warm_up, files = job.list_files(job.warm_up), job.list_files(job.folder)
        with open_sender(job) as send:
            _send_in_threads(send, iter(warm_up), job.at_once)
            meter = Meter(job)
            _send_in_threads(send, meter.iter_files(files), job.at_once)
            return meter.finish()

    return run


def _send_in_threads(send: SendFunction, files: Iterator[Path], at_once: int) -> None:
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not failures:
                with lock:
                    file = next(files, None)
                if file is None:
                    return
                send(file)
        except BaseException as error:  # noqa: BLE001 -- raised below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _server_cpu_seconds(job: Job) -> float:
    """Ask for the server's own processor time, which only the null server tells."""
    try:
        with urllib.request.urlopen(f"{job.server_url}/_spent") as reply:  # noqa: S310 -- of ours
            return float(json.load(reply)["cpu"])
    except urllib.error.HTTPError:
        return 0.0


def _max_resident_bytes() -> int:
    """Give the most that was resident, in bytes.

    `ru_maxrss` would tell of the process that started this one too, where that was larger.
    """
    status = Path("/proc/self/status")
    if status.exists():
        _, _, rest = status.read_text().partition("VmHWM:")
        return int(rest.split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def time_decoding(decode: DecodeFunction, body: bytes) -> Mapping[str, float]:
    """Decode a page until the time is up; tell the processor time of once."""
    decode(body)
    count, began = 0, time.process_time()
    while time.process_time() - began < DECODING_SECONDS:
        decode(body)
        count += 1
    return {"seconds": (time.process_time() - began) / count}


def main(
    ways: Mapping[str, UploadFunction], decoders: Mapping[str, Callable[[], DecodeFunction]] = {}
) -> None:
    """Do what the command line says; a failure is told in one line."""
    name, what, *rest = sys.argv[1:]
    try:
        if what == "--decode":
            result: Any = time_decoding(decoders[name](), Path(rest[0]).read_bytes())
        else:
            result = asdict(ways[name](Job(**json.loads(what))))
    except Exception as error:  # noqa: BLE001 -- shown as this way's result
        sys.stdout.write(json.dumps({"problem": f"{type(error).__name__}: {error}"[:200]}))
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.write(json.dumps(result))
