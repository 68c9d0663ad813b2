"""Measure the retrievals per second of `dify-kb external serve`, on one core.

`python benchmarks/external_retrieval.py` writes 1,000 files with the word frequencies of a language
(Zipf's law, fixed seed), serves them on one core, and sends different queries of three to eight
words over HTTP from another core, as Dify does, with a concurrency of 16. Limits: 500 per second,
and 50 ms for the 99th percentile. Also prints the CPU time per retrieval, and the time until the
command listens: for a new folder, for the same folder again, and with 1 % of the files changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from search_latency import SyntheticLanguage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

FILES, PARAGRAPHS, WORDS = 1000, 6, 60
AT_ONCE, QUESTIONS, WARM_UP = 16, 5000, 500
KEY = "benchmark"
MIN_PER_SECOND, MAX_P99_MS = 500.0, 50.0


def main() -> None:
    """Write files, serve them, send queries, and print tables."""
    language = SyntheticLanguage()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "docs"
        folder.mkdir()
        for number in range(FILES):
            _write(folder, number, language)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{platform.platform()}, Python {platform.python_version()}, SQLite", end=" ")
        print(f"{sqlite3.sqlite_version}; {FILES:,} files, {size / 1e6:.1f} MB, served on one core")
        environment = os.environ | {"XDG_CACHE_HOME": scratch, "DIFY_EXTERNAL_API_KEY": KEY}
        _time_start("new folder", folder, environment)
        time.sleep(2)  # recently changed files are checked by content
        _time_start("same folder", folder, environment)
        _time_start("same folder again", folder, environment)
        for number in range(0, FILES, 100):
            _write(folder, number, language)
        questions = [language.question() for _ in range(QUESTIONS)]
        with _run_server("1 % of the files changed", folder, environment) as (url, process):
            if len(os.sched_getaffinity(0)) > 1:
                os.sched_setaffinity(0, os.sched_getaffinity(0) - {_server_core()})
            asyncio.run(_measure_retrievals(url, questions, process))


def _write(folder: Path, number: int, language: SyntheticLanguage) -> None:
    text = "\n\n".join(language.text(WORDS) for _ in range(PARAGRAPHS))
    (folder / f"{number}.md").write_text(text)


def _server_core() -> int:
    return min(os.sched_getaffinity(0))


def _time_start(what: str, folder: Path, environment: Mapping[str, str]) -> None:
    with _run_server(what, folder, environment):
        pass


@contextmanager
def _run_server(
    what: str, folder: Path, environment: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    core = _server_core()
    started = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dify_kb", "--json", "external", "serve", str(folder)),
            *("--port", "0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 -- no threads here yet
    )
    try:
        assert process.stdout is not None  # noqa: S101 -- it is a pipe
        server_info = json.loads(process.stdout.readline())
        print(f"listening after {time.perf_counter() - started:5.2f} s: {what}")
        yield server_info["url"], process.pid
    finally:
        process.terminate()
        process.communicate()


def _processor_time(process: int) -> float:
    """Return the CPU time of a process, in seconds (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure_retrievals(url: str, questions: Sequence[str], process: int) -> None:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        remaining = deque(questions[:WARM_UP])
        await _ask_all(session, url, remaining)
        remaining = deque(questions[WARM_UP:])
        number = len(remaining)
        used = _processor_time(process)
        started = time.perf_counter()
        times = await _ask_all(session, url, remaining)
        seconds = time.perf_counter() - started
        used = _processor_time(process) - used
    cuts = statistics.quantiles(times, n=100)
    heads = ("per second", "median", "p99", "max", "CPU time")
    print(*(f"{head:>10}" for head in heads), f"  of {number:,}")
    cells = (cuts[49], cuts[98], max(times), used / number)
    print(f"{number / seconds:10.0f}", *(f"{cell * 1e3:7.2f} ms" for cell in cells), end="")
    print(f"   limits: {MIN_PER_SECOND:.0f} per second, {MAX_P99_MS:.0f} ms")


async def _ask_all(session: aiohttp.ClientSession, url: str, remaining: deque[str]) -> list[float]:
    times: list[float] = []

    async def work() -> None:
        while remaining:
            body = {
                "retrieval_setting": {"top_k": 4, "score_threshold": 0.0},
                "query": remaining.popleft(),
                "knowledge_id": "docs",
                "metadata_condition": None,
            }
            started = time.perf_counter()
            async with session.post(f"{url}/retrieval", data=json.dumps(body)) as response:
                result = await response.json()
            times.append(time.perf_counter() - started)
            if response.status != 200 or not result["records"]:
                raise SystemExit(f"{response.status}: {result}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return times


if __name__ == "__main__":
    main()
