"""Loads and servers in processes of their own, ended by SIGKILL at random points until done."""

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
"""Creates in flight at most, and so what one kill can have sent again."""

PATIENCE = 10.0
"""Seconds for a process to start on a machine that is busy with others."""

FAULTS: Mapping[str, Mapping[str, float]] = {
    CREATE: {
        "503": 0.08,
        "500": 0.03,
        "late 0.1": 0.04,
        "commit-then-reset": 0.06,
        "commit-then-504-html": 0.04,
    }
}
"""Those of the prototype that this design was proven with (loading.md)."""


@frozen
class OutputProcess:
    """A process and the file that it writes to."""

    popen: subprocess.Popen[bytes]
    output: Path

    def kill(self) -> None:
        """End it at once, and no other."""
        self.popen.kill()
        self.popen.wait()

    @property
    def has_exited(self) -> bool:
        """Whether it ended by itself."""
        return self.popen.poll() is not None

    def read_lines(self) -> list[dict[str, Any]]:
        """Read the whole lines that it wrote."""
        text = self.output.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def wait_for_output(self) -> None:
        """Wait until it has written anything."""
        until = time.monotonic() + PATIENCE
        while not self.output.stat().st_size:
            assert time.monotonic() < until, "it does not start"
            assert not self.has_exited, self.output.with_suffix(".err").read_text()
            time.sleep(0.005)


@define
class KilledLoad:
    """A load that is killed again and again, and what came of it."""

    root: Path
    files: int
    seed: int
    kills: int = 0
    server_kills: int = 0
    faults_injected: int = 0
    """Faults that the server met, so far as it lived to tell."""

    claims: dict[str, str] = field(factory=dict)
    """The files that any life said were loaded, and their documents."""

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
        """The server's address, which stays."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start_server(self) -> OutputProcess:
        """Start the server, where and with what it was."""
        process = self._start("server_process.py", str(self.root / "server.db"), str(self.port))
        process.wait_for_output()
        return process

    def create_dataset(self) -> None:
        """Make the dataset, and have the server fail at times."""
        with Client(self.url, KEY) as client:
            self.dataset = client.datasets.create("kills", indexing_technique="economy").id

    def inject_random_faults(self) -> None:
        """Have the server meet creates with faults by chance."""
        body = json.dumps({"random": {"seed": self.seed, "rates": FAULTS}}).encode()
        self._request("/_emulator/faults", body)

    def start_load(self) -> OutputProcess:
        """Start the load, and wait until it has begun."""
        docs = str(self.root / "docs")
        process = self._start("load_process.py", self.url, self.dataset, docs)
        process.wait_for_output()
        return process

    def read_output(self, process: OutputProcess) -> None:
        """Take in what a life said."""
        for line in process.read_lines():
            if "exit_code" in line:
                self.report = line
            elif line.get("outcome") in LOADED:
                self.claims[line["key"]] = line["document_id"]

    def fetch_history(self) -> tuple[list[Exchange], list[RunEvent]]:
        """Fetch what the server remembers since it started."""
        return parse_jsonl(self._request("/_emulator/history").decode())

    def count_faults(self) -> int:
        """Count the faults that the server met since it started."""
        met: dict[str, dict[str, int]] = json.loads(self._request("/_emulator/faults"))["met"]
        return sum(sum(words.values()) for words in met.values())

    def read_documents(self) -> list[DocumentState]:
        """Read what the server's file holds; only while it is down."""
        store = Store(self.root / "server.db")
        try:
            return store.documents.list_states(self.dataset)
        finally:
            store.close()

    def find_false_claims(self, documents: Sequence[DocumentState]) -> list[str]:
        """Name the files that a life said were loaded, and are not."""
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
            popen = subprocess.Popen(  # noqa: S603 -- our own scripts
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
    """End a process whatever happens."""
    try:
        yield process
    finally:
        process.kill()


def kill_loads(killed_load: KilledLoad, kills: int, longest: float) -> None:
    """Kill the load at random points, so many times, then let it end."""
    chance = random.Random(f"kills {killed_load.seed}")
    while killed_load.kills < kills:
        with kill_at_exit(killed_load.start_load()) as process:
            time.sleep(chance.uniform(0, longest))
            early = process.has_exited
        killed_load.read_output(process)
        assert not early, "it ended before it could be killed: too few files"
        killed_load.kills += 1
    _finish_load(killed_load)
    killed_load.faults_injected += killed_load.count_faults()


def kill_servers(
    killed_load: KilledLoad, server: OutputProcess, kills: int, longest: float
) -> OutputProcess:
    """Kill the server while a load goes on, so many times; give the one that is left."""
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
