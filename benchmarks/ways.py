"""The ways to upload a file that are compared, and how each is run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imports
from attrs import field, frozen
from environments import Environment, environment

import dify_kb

PEERS = Path(__file__).with_name("peers")

HTTPX = ("httpx==0.28.1", "uvloop==0.23.0")
REQUESTS = ("requests==2.34.2",)
DATASET_SDK = ("dify-dataset-sdk==0.6.3", *HTTPX)
OAPI = ("dify-oapi2==1.1.2", *HTTPX)
PYTHON_SDK = ("dify-python-sdk==0.1.16", *HTTPX)
"""What stands beside us, the newest of November 2026."""

FLOOR, FORM_DATA, JOINED = "bare sockets", "aiohttp FormData", "aiohttp, joined bytes"
BY_PATH, BY_BYTES = "create_by_file(path)", "create_by_file(bytes)"
BLOCKING = "create_by_file, blocking"
LOAD, ACCEPTED, OWN_PACE = "load", "load, wait='accepted'", "load, at its own pace"
HTTPX_ASYNC, OAPI2 = "httpx, async", "dify-oapi2, async"


@frozen
class Way:
    """A way of a script in `peers`, and what it needs; nothing for the environment of this run."""

    label: str
    script: str
    name: str
    needs: Sequence[str] = ()


WAYS: Sequence[Way] = (
    Way(FLOOR, "sockets", "sockets"),
    Way(FORM_DATA, "aiohttp", "form_data"),
    Way(JOINED, "aiohttp", "joined"),
    Way(BY_PATH, "dify_kb", "by_path"),
    Way(BY_BYTES, "dify_kb", "by_bytes"),
    Way(BLOCKING, "dify_kb", "blocking"),
    Way(LOAD, "dify_kb", "load"),
    Way(ACCEPTED, "dify_kb", "load accepted"),
    Way(HTTPX_ASYNC, "httpx", "httpx", HTTPX),
    Way("requests, threads", "requests", "requests", REQUESTS),
    Way("dify-dataset-sdk, threads", "dataset_sdk", "dify-dataset-sdk", DATASET_SDK),
    Way(OAPI2, "oapi2", "dify-oapi2", OAPI),
    Way("dify-python-sdk, threads", "python_sdk", "dify-python-sdk", PYTHON_SDK),
    Way("dify-python-sdk, async", "python_sdk", "dify-python-sdk, async", PYTHON_SDK),
)

JSON = "json.loads"
PACED = Way(OWN_PACE, "dify_kb", "load own pace")
"""Where the server takes its time."""

DECODERS: Sequence[Way] = (
    Way(JSON, "sockets", "json"),
    Way("dify-kb", "dify_kb", "dify-kb"),
    Way("dify-dataset-sdk", "dataset_sdk", "dify-dataset-sdk", DATASET_SDK),
    Way("dify-oapi2", "oapi2", "dify-oapi2", OAPI),
)

IMPORTS: Mapping[str, tuple[str, Sequence[str]]] = {
    **{case: (case, ()) for case in imports.CASES},
    "import httpx": ("import httpx", HTTPX),
    "import requests": ("import requests", REQUESTS),
    "dify-dataset-sdk": ("from dify_dataset_sdk import DifyDatasetClient", DATASET_SDK),
    "dify-oapi2": ("from dify_oapi.client import Client", OAPI),
    "dify-python-sdk": ("from dify_client import KnowledgeBaseClient", PYTHON_SDK),
}
"""What is imported, and where."""


@frozen
class Runner:
    """Runs ways in their environments, which are made in `folder` when they are missing; `made`
    tells of those that were needed so far.
    """

    folder: Path
    longest: float = 300.0
    """Seconds after which a way is given up."""

    made: dict[tuple[str, ...], Environment] = field(factory=dict)

    def environment(self, needs: Sequence[str]) -> Environment:
        """Find or make an environment."""
        key = tuple(needs)
        if key not in self.made:
            self.made[key] = environment(needs, self.folder)
        return self.made[key]

    def send(self, way: Way, job: Mapping[str, object]) -> Mapping[str, Any]:
        """Do a job in a process of its own; what goes wrong is told as `problem`."""
        return self._run(way, json.dumps(job))

    def decode(self, way: Way, page: Path) -> Mapping[str, Any]:
        """Decode a page of the list again and again."""
        return self._run(way, "--decode", str(page))

    def _run(self, way: Way, *arguments: str) -> Mapping[str, Any]:
        made = self.environment(way.needs)
        if made.problem is not None:
            return {"problem": made.problem}
        script = PEERS / f"with_{way.script}.py"
        try:
            run = subprocess.run(
                [made.python, script, way.name, *arguments],
                env=surroundings(own=not way.needs),
                capture_output=True,
                text=True,
                check=False,
                timeout=self.longest,
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"took longer than {self.longest:.0f} s"}
        try:
            told: Mapping[str, Any] = json.loads(run.stdout)
        except ValueError:
            return {"problem": (run.stderr.splitlines() or ["died without a word"])[-1]}
        return told


def surroundings(*, own: bool) -> dict[str, str]:
    """Give a process its variables: this run's package for our own ways, and no proxy."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = {"PYTHONPATH": str(Path(dify_kb.__file__).parent.parent)} if own else {}
    return {**kept, **path, "NO_PROXY": "127.0.0.1"}
