"""How many retrievals a second `dify-kb external serve` answers, on one core.

`python benchmarks/external_retrieval.py` writes 1,000 files of words that are as rare as in a
language (Zipf's law, fixed seed), serves them by the command on one core, and asks from another, 16
at once, questions of three to eight words, each another one, over HTTP as Dify asks them. Limits:
500 a second, and 50 ms for 99 in 100. It also tells what a retrieval takes of the server's core,
and how long the command takes to listen: over a new folder, over the same one again, and over one
of which a file in a hundred has changed.
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
    """Write files, serve them three times, ask, and print tables."""
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
        _time_start("a new folder", folder, environment)
        time.sleep(2)  # files that were changed just now are looked at more closely
        _time_start("the same", folder, environment)
        _time_start("the same, again", folder, environment)
        for number in range(0, FILES, 100):
            _write(folder, number, language)
        questions = [language.question() for _ in range(QUESTIONS)]
        with _run_server("1 in 100 changed", folder, environment) as (url, process):
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
        print(f"listens after {time.perf_counter() - started:5.2f} s over {what}")
        yield server_info["url"], process.pid
    finally:
        process.terminate()
        process.communicate()


def _processor_time(process: int) -> float:
    """Tell the seconds that a process has had of a core, as Linux counts them."""
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
    heads = ("a second", "median", "99 %", "most", "processor")
    print(*(f"{head:>10}" for head in heads), f"  of {number:,}")
    cells = (cuts[49], cuts[98], max(times), used / number)
    print(f"{number / seconds:10.0f}", *(f"{cell * 1e3:7.2f} ms" for cell in cells), end="")
    print(f"   limits: {MIN_PER_SECOND:.0f} a second, {MAX_P99_MS:.0f} ms")


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
                reply = await response.json()
            times.append(time.perf_counter() - started)
            if response.status != 200 or not reply["records"]:
                raise SystemExit(f"{response.status}: {reply}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return times


if __name__ == "__main__":
    main()
