"""Measure an upload method in its own environment. Uses only the standard library.

The scripts next to this one pass their upload methods to `main`. `python SCRIPT METHOD JOB` runs a
job (JSON): it sends some files to warm up, then those of a folder, and prints a `JobCost` as JSON.
`python SCRIPT METHOD --decode FILE` decodes a page of a document list instead, and prints the
seconds per page.
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
"""Seconds between two measurements of the event loop lag."""

DECODING_SECONDS = 1.0
"""Duration of the decoding measurement."""


@dataclass(frozen=True)
class Job:
    """The files to send, and how.

    With `held`, files are in memory beforehand, for methods that accept bytes. No new files are
    started after `seconds`. With `lag`, the lag of the event loop is measured.
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
        """The URL of create-by-file."""
        return f"{self.url}/datasets/{self.dataset}/document/create-by-file"

    def read_content(self, file: Path) -> bytes:
        """Return the content of a file."""
        return self._contents[file] if self.held else file.read_bytes()

    @contextlib.contextmanager
    def open_source(self, file: Path) -> Iterator[bytes | BinaryIO]:
        """Yield the content if it is in memory, else the opened file."""
        if self.held:
            yield self._contents[file]
            return
        with file.open("rb") as stream:
            yield stream

    def list_files(self, folder: str) -> Sequence[Path]:
        """Return the files of a folder; with `held`, read them into memory."""
        found = sorted(Path(folder).iterdir())
        if self.held:
            self._contents.update((file, file.read_bytes()) for file in found)
        return found


@dataclass(frozen=True, kw_only=True)
class JobCost:
    """CPU, wall and server CPU time of a job, in seconds, and its peak memory, in bytes."""

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
    """A measurement that starts when it is created."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._server = _server_cpu_seconds(job)
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        self._until = self._wall + job.seconds
        self._uploads = 0

    def iter_files(self, files: Sequence[Path]) -> Iterator[Path]:
        """Yield the files, and count them, until the time limit."""
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
        """Return the cost; by default, `uploads` is the count of `iter_files`."""
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
    """Return a function that sends the files of a job in `at_once` tasks."""

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
    """Run a coroutine function on asyncio's loop, or uvloop if the job requires it."""
    factory = None
    if job.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run(job))


@contextlib.asynccontextmanager
async def measure_lag(job: Job) -> Any:
    """Measure how late the event loop wakes a sleeping task, in seconds."""
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
    """Return a function that sends the files of a job in `at_once` threads."""

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
    """Return the CPU time of the server; 0 if the server is not the null server."""
    try:
        with urllib.request.urlopen(f"{job.server_url}/_spent") as response:  # noqa: S310 -- ours
            return float(json.load(response)["cpu"])
    except urllib.error.HTTPError:
        return 0.0


def _max_resident_bytes() -> int:
    """Return the peak resident memory of this process, in bytes.

    On Linux, `ru_maxrss` includes the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        _, _, rest = status.read_text().partition("VmHWM:")
        return int(rest.split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def time_decoding(decode: DecodeFunction, body: bytes) -> Mapping[str, float]:
    """Decode a page repeatedly; return the CPU time per page."""
    decode(body)
    count, began = 0, time.process_time()
    while time.process_time() - began < DECODING_SECONDS:
        decode(body)
        count += 1
    return {"seconds": (time.process_time() - began) / count}


def main(
    methods: Mapping[str, UploadFunction], decoders: Mapping[str, Callable[[], DecodeFunction]] = {}
) -> None:
    """Run the command line. An error is printed as `problem`, in JSON."""
    name, what, *rest = sys.argv[1:]
    try:
        if what == "--decode":
            result: Any = time_decoding(decoders[name](), Path(rest[0]).read_bytes())
        else:
            result = asdict(methods[name](Job(**json.loads(what))))
    except Exception as error:  # noqa: BLE001 -- shown as the result of this method
        sys.stdout.write(json.dumps({"problem": f"{type(error).__name__}: {error}"[:200]}))
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.write(json.dumps(result))
