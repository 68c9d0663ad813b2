"""Measure the cost of a load on a server that refuses, fails, or cannot index.

`python benchmarks/failure_costs.py [quota] [outage] [misconfigured]` runs the given measurements,
or all, against embedded servers in another process, and fails if a bound is missed:

quota: 60 writes per window, refused ones included; the window is 3 s instead of 60, and the times
of the client are scaled to a twentieth. Measures the used part of the quota and the refused part
of the requests.

outage: 60 % of the create requests fail for 20 s, half of them with 500 and half with 503.
Measures the failed requests, compared with 32 workers that retry forever.

misconfigured: the indexing of every document fails, as with a wrong embedding model. Measures the
uploads until the load stops.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import anyio
from emulator_process import EmulatorProcess, run_emulator

from dify_kb import AsyncClient, AttemptEvent, LoadReport, Policy
from dify_kb.emulator import Settings
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CREATE = catalog.CREATE_DOCUMENT_BY_FILE.name

QUOTA, WINDOW, WINDOWS = 60, 3.0, 22
MIN_USED_PART, MAX_REFUSED_PART = 0.75, 0.035
"""Minimum used part of the quota, and maximum refused part of the requests."""

SECONDS_BEFORE_OUTAGE, OUTAGE_SECONDS, FAILURE_RATE = 5.0, 20.0, 0.6
AT_ONCE = 32
RETRY_PAUSE = 0.3
"""Seconds that a fixed worker pauses after a failure: the time of a request of 32 workers at 100
requests per second. The embedded server fails immediately, which would make them look worse."""

MAX_WASTED_PART = 0.25
"""Maximum of failed requests, as a part of those of fixed workers."""

MAX_UPLOADS = 50
"""Maximum of uploads before a load notices that no document is indexed."""


def measure_quota(folder: Path) -> bool:
    """Load the files of 22 windows, with a stated and with a learned rate."""
    settings = Settings(quota=QUOTA, quota_window=WINDOW)
    print(f"\n{QUOTA} writes in {WINDOW:g} s, {WINDOWS} windows")
    print(f"{'':10}{'used':>8}{'refused':>9}{'windows':>9}")
    within = True
    for rate in (None, f"{QUOTA}/min"):
        with run_emulator(settings) as server:
            number = QUOTA * WINDOWS
            policy = Policy().scaled(WINDOW / 60)
            report, statuses = anyio.run(run_load, server, folder, number, policy, rate)
        windows = report.seconds / WINDOW
        used = report.added / (QUOTA * windows)
        refused = statuses[403] / statuses.total()
        print(
            f"{'stated' if rate else 'learned':10}{used:8.1%}{refused:9.2%}{windows:9.1f}",
            flush=True,
        )
        within = (
            within
            and report.added == number
            and used >= MIN_USED_PART
            and refused <= MAX_REFUSED_PART
        )
    return within


async def run_load(
    server: EmulatorProcess, folder: Path, number: int, policy: Policy, rate: str | None = None
) -> tuple[LoadReport, Counter[int]]:
    """Load files, and count the create requests by status (0 without a response)."""
    statuses: Counter[int] = Counter()
    async with open_counting_client(server, statuses, policy) as client:
        dataset = await client.datasets.create(str(uuid.uuid4()), indexing_technique="economy")
        report = await client.load(
            dataset,
            create_folder(folder, number),
            wait="accepted",
            rate=rate,
            journal=folder / f"{dataset.id}.db",
        )
    return report, statuses


def measure_outage(folder: Path) -> bool:
    """Load during an outage, and compare with fixed workers."""
    print(f"\n{FAILURE_RATE:.0%} of the create requests fail for {OUTAGE_SECONDS:g} s")
    print(f"{'':10}{'wasted':>8}{'part':>8}{'created':>9}{'seconds':>9}")
    wasted: dict[str, int] = {}
    for name, send in (("fixed 32", send_with_fixed_workers), ("load", load_through_outage)):
        with run_emulator(Settings.pods(4, 32)) as server:
            server.plan_faults({"indexing": ["die"]})
            began = time.monotonic()
            statuses = anyio.run(send, server, folder)
            seconds = time.monotonic() - began
        wasted[name] = statuses.total() - statuses[200]
        part = wasted[name] / wasted["fixed 32"]
        print(f"{name:10}{wasted[name]:8}{part:8.1%}{statuses[200]:9}{seconds:9.1f}", flush=True)
    return wasted["load"] <= MAX_WASTED_PART * wasted["fixed 32"]


async def load_through_outage(server: EmulatorProcess, folder: Path) -> Counter[int]:
    """Load until all files are accepted."""
    results: list[Counter[int]] = []

    async def send() -> None:
        report, statuses = await run_load(server, folder, 2000, Policy())
        assert report, report  # noqa: S101 -- else the result is meaningless
        results.append(statuses)

    async with anyio.create_task_group() as group:
        group.start_soon(inject_outage, server)
        group.start_soon(send)
    return results[0]


async def send_with_fixed_workers(server: EmulatorProcess, folder: Path) -> Counter[int]:
    """Send by 32 workers that retry each file until it is accepted."""
    statuses: Counter[int] = Counter()
    files = iter(sorted(create_folder(folder, 2000).iterdir()))
    async with AsyncClient(server.url, server.key) as client:
        dataset = await client.datasets.create(str(uuid.uuid4()), indexing_technique="economy")
    url = f"{server.url}/datasets/{dataset.id}/document/create-by-file"
    data = json.dumps({"process_rule": {"mode": "automatic"}})
    headers = {"Authorization": f"Bearer {server.key}"}

    async def work() -> None:
        for file in files:
            status = 0
            while status != 200:
                form = aiohttp.FormData({"data": data})
                form.add_field("file", file.read_bytes(), filename=file.name)
                async with session.post(url, data=form) as response:
                    status = response.status
                statuses[status] += 1
                if status != 200:
                    await anyio.sleep(RETRY_PAUSE)

    async with aiohttp.ClientSession(headers=headers) as session, anyio.create_task_group() as all_:
        all_.start_soon(inject_outage, server)
        for _ in range(AT_ONCE):
            all_.start_soon(work)
    return statuses


async def inject_outage(server: EmulatorProcess) -> None:
    """Inject random faults for a while, after a pause."""
    await anyio.sleep(SECONDS_BEFORE_OUTAGE)
    words = {"500": FAILURE_RATE / 2, "503": FAILURE_RATE / 2}
    server.plan_faults({"random": {"seed": 1, "rates": {CREATE: words}}})
    await anyio.sleep(OUTAGE_SECONDS)
    server.stop_random()


def measure_misconfigured(folder: Path) -> bool:
    """Load 1,000 files that cannot be indexed."""
    print("\nindexing fails for all of 1,000 files")
    print(f"{'seconds each':14}{'uploads':>8}{'stopped':>15}{'after s':>9}")
    within = True
    for seconds in (0.0, 0.2, 2.0):
        with run_emulator(Settings(indexing=seconds)) as server:
            rule = {"words": ["error no such model"], "names": "*", "always": True}
            server.plan_faults({"indexing": [rule]})
            report, uploads = anyio.run(load_until_indexed, server, folder)
        stopped = str(report.stopped)
        print(f"{seconds:<14g}{uploads:8}{stopped:>15}{report.seconds:9.1f}", flush=True)
        within = within and uploads <= MAX_UPLOADS and stopped == "misconfigured"
    return within


async def load_until_indexed(server: EmulatorProcess, folder: Path) -> tuple[LoadReport, int]:
    """Load and follow the indexing; return the report and the number of accepted uploads."""
    statuses: Counter[int] = Counter()
    async with open_counting_client(server, statuses, Policy()) as client:
        dataset = await client.datasets.create(str(uuid.uuid4()), indexing_technique="economy")
        journal = folder / f"{dataset.id}.db"
        report = await client.load(dataset, create_folder(folder, 1000), journal=journal)
    return report, statuses[200]


@asynccontextmanager
async def open_counting_client(
    server: EmulatorProcess, statuses: Counter[int], policy: Policy
) -> AsyncIterator[AsyncClient]:
    """Open a client that counts create requests by status."""

    def record_attempt(event: AttemptEvent) -> None:
        if event.endpoint == CREATE:
            statuses[event.status or 0] += 1

    async with AsyncClient(
        server.url, server.key, on_event=record_attempt, policy=policy
    ) as client:
        yield client


def create_folder(folder: Path, number: int) -> Path:
    """Return a folder of small files, and create it if it does not exist."""
    files = folder / str(number)
    if not files.exists():
        files.mkdir()
        for index in range(number):
            (files / f"{index:05}.txt").write_bytes(b"A line of text.\n")
    return files


BENCHMARKS: dict[str, Callable[[Path], bool]] = {
    "quota": measure_quota,
    "outage": measure_outage,
    "misconfigured": measure_misconfigured,
}


def main() -> int:
    """Run the given measurements, and fail if a bound is missed."""
    print(f"{platform.platform()}, Python {platform.python_version()}", end="")
    print(f", dify-kb {version('dify-kb')}, aiohttp {version('aiohttp')}")
    with tempfile.TemporaryDirectory() as temporary:
        names = sys.argv[1:] or [*BENCHMARKS]
        within = [BENCHMARKS[name](Path(temporary)) for name in names]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
