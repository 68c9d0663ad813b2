"""Loads and servers in separate processes, killed by SIGKILL at random points."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from invariants import LOADED
from load_environment import CREATE, KEY, find_free_port, write_files

from dify_kb import Client
from dify_kb.emulator.history import Exchange, RunEvent, parse_jsonl
from dify_kb.emulator.store import DocumentState, Store

HERE = Path(__file__).parent

CONCURRENCY = 8
"""Maximum creates in flight, and thus the maximum creates repeated after a kill."""

PATIENCE = 10.0
"""Seconds for a process to start on a busy machine."""

FAULTS: Mapping[str, Mapping[str, float]] = {
    CREATE: {
        "503": 0.08,
        "500": 0.03,
        "late 0.1": 0.04,
        "commit-then-reset": 0.06,
        "commit-then-504-html": 0.04,
    }
}
"""Fault rates with which the prototype of this design was tested (loading.md)."""


@frozen
class OutputProcess:
    """A process and its output file."""

    popen: subprocess.Popen[bytes]
    output: Path

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        self.popen.kill()
        self.popen.wait()

    @property
    def has_exited(self) -> bool:
        """Whether the process ended by itself."""
        return self.popen.poll() is not None

    def read_lines(self) -> list[dict[str, Any]]:
        """Return the complete lines of the output, parsed as JSON."""
        text = self.output.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_for_output(self) -> None:
        """Wait until the process has written output."""
        until = time.monotonic() + PATIENCE
        while not self.output.stat().st_size:
            assert time.monotonic() < until, "the process did not start in time"
            assert not self.has_exited, self.output.with_suffix(".err").read_text()
            time.sleep(0.005)


@define
class KilledLoad:
    """A load that is killed repeatedly, and its results."""

    root: Path
    files: int
    seed: int
    kills: int = 0
    server_kills: int = 0
    faults_injected: int = 0
    """Injected faults; those after the last count before a server kill are missing."""

    claims: dict[str, str] = field(factory=dict)
    """Document ids by file that any process reported as loaded."""

    report: dict[str, Any] = field(factory=dict)
    port: int = field(factory=find_free_port)
    began: float = field(factory=time.monotonic)
    dataset: str = ""
    _started: int = 0

    def __attrs_post_init__(self) -> None:
        (self.root / "docs").mkdir()
        write_files(self.root / "docs", self.files)

    @property
    def url(self) -> str:
        """The URL of the server, which stays the same after restarts."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start_server(self) -> OutputProcess:
        """Start the server with the same port and database."""
        process = self._start("server_process.py", str(self.root / "server.db"), str(self.port))
        process.wait_for_output()
        return process

    def create_dataset(self) -> None:
        """Create the dataset."""
        with Client(self.url, KEY) as client:
            self.dataset = client.datasets.create("kills", indexing_technique="economy").id

    def inject_random_faults(self) -> None:
        """Configure random faults for creates on the server."""
        body = json.dumps({"random": {"seed": self.seed, "rates": FAULTS}}).encode()
        self._request("/_emulator/faults", body)

    def start_load(self) -> OutputProcess:
        """Start the load process and wait until it is running."""
        docs = str(self.root / "docs")
        process = self._start("load_process.py", self.url, self.dataset, docs)
        process.wait_for_output()
        return process

    def read_output(self, process: OutputProcess) -> None:
        """Store the results and the report from the output of a process."""
        for line in process.read_lines():
            if "exit_code" in line:
                self.report = line
            elif line.get("outcome") in LOADED:
                self.claims[line["key"]] = line["document_id"]

    def fetch_history(self) -> tuple[list[Exchange], list[RunEvent]]:
        """Return the requests and indexing runs of the server since its start."""
        return parse_jsonl(self._request("/_emulator/history").decode())

    def count_faults(self) -> int:
        """Return the number of faults injected since the server's start."""
        met: dict[str, dict[str, int]] = json.loads(self._request("/_emulator/faults"))["met"]
        return sum(sum(words.values()) for words in met.values())

    def read_documents(self) -> list[DocumentState]:
        """Return the documents in the server's database; only while the server is stopped."""
        store = Store(self.root / "server.db")
        try:
            return store.documents.list_states(self.dataset)
        finally:
            store.close()

    def find_false_claims(self, documents: Sequence[DocumentState]) -> list[str]:
        """Return the files that were reported as loaded but are not."""
        there = {
            one.name: one.id
            for one in documents
            if one.status == "completed" and one.chunks == one.completed == 1
        }
        return [key for key, document_id in self.claims.items() if there.get(key) != document_id]

    def _start(self, script: str, *arguments: str) -> OutputProcess:
        self._started += 1
        output = self.root / f"{self._started:03}.out"
        with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
            popen = subprocess.Popen(  # noqa: S603 -- fixed scripts
                [sys.executable, str(HERE / script), *arguments], stdout=out, stderr=err
            )
        return OutputProcess(popen, output)

    def _request(self, path: str, body: bytes | None = None) -> bytes:
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, body, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def kill_at_exit(process: OutputProcess) -> Iterator[OutputProcess]:
    """Kill a process at the end of the block."""
    try:
        yield process
    finally:
        process.kill()


def kill_loads(killed_load: KilledLoad, kills: int, longest: float) -> None:
    """Kill the load at random points a number of times, then let it finish."""
    chance = random.Random(f"kills {killed_load.seed}")
    while killed_load.kills < kills:
        with kill_at_exit(killed_load.start_load()) as process:
            time.sleep(chance.uniform(0, longest))
            early = process.has_exited
        killed_load.read_output(process)
        assert not early, "the load ended before it was killed: too few files"
        killed_load.kills += 1
    _finish_load(killed_load)
    killed_load.faults_injected += killed_load.count_faults()


def kill_servers(
    killed_load: KilledLoad, server: OutputProcess, kills: int, longest: float
) -> OutputProcess:
    """Kill and restart the server a number of times during a load; return the last server."""
    chance = random.Random(f"server kills {killed_load.seed}")
    with kill_at_exit(killed_load.start_load()) as process:
        for _ in range(kills):
            time.sleep(chance.uniform(0, longest))
            killed_load.faults_injected += killed_load.count_faults()
            server.kill()
            killed_load.server_kills += 1
            time.sleep(chance.uniform(0, longest))
            server = killed_load.start_server()
            killed_load.inject_random_faults()
        _wait_for_success(process)
        killed_load.read_output(process)
    _finish_load(killed_load)
    killed_load.faults_injected += killed_load.count_faults()
    return server


def _finish_load(killed_load: KilledLoad) -> None:
    with kill_at_exit(killed_load.start_load()) as process:
        _wait_for_success(process)
        killed_load.read_output(process)


def _wait_for_success(process: OutputProcess) -> None:
    assert process.popen.wait(120) == 0, process.output.with_suffix(".err").read_text()
