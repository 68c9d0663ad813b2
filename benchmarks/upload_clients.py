"""The upload methods of the comparison, and how each is run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import import_time
from attrs import field, frozen
from virtual_environments import VirtualEnvironment, create_environment

import dify_kb

PEERS = Path(__file__).with_name("peers")

HTTPX = ("httpx==0.28.1", "uvloop==0.23.0")
REQUESTS = ("requests==2.34.2",)
DATASET_SDK = ("dify-dataset-sdk==0.6.3", *HTTPX)
OAPI = ("dify-oapi2==1.1.2", *HTTPX)
PYTHON_SDK = ("dify-python-sdk==0.1.16", *HTTPX)
"""Compared packages, in their latest versions of November 2026."""

FLOOR, FORM_DATA, JOINED = "bare sockets", "aiohttp FormData", "aiohttp, joined bytes"
BY_PATH, BY_BYTES = "create_by_file(path)", "create_by_file(bytes)"
BLOCKING = "create_by_file, blocking"
LOAD, ACCEPTED, OWN_PACE = "load", "load, wait='accepted'", "load, at its own pace"
HTTPX_ASYNC, OAPI2 = "httpx, async", "dify-oapi2, async"


@frozen
class UploadMethod:
    """A method of a script in `peers`, and its requirements, if it needs an environment."""

    label: str
    script: str
    name: str
    needs: Sequence[str] = ()


UPLOAD_METHODS: Sequence[UploadMethod] = (
    UploadMethod(FLOOR, "sockets", "sockets"),
    UploadMethod(FORM_DATA, "aiohttp", "form_data"),
    UploadMethod(JOINED, "aiohttp", "joined"),
    UploadMethod(BY_PATH, "dify_kb", "by_path"),
    UploadMethod(BY_BYTES, "dify_kb", "by_bytes"),
    UploadMethod(BLOCKING, "dify_kb", "blocking"),
    UploadMethod(LOAD, "dify_kb", "load"),
    UploadMethod(ACCEPTED, "dify_kb", "load accepted"),
    UploadMethod(HTTPX_ASYNC, "httpx", "httpx", HTTPX),
    UploadMethod("requests, threads", "requests", "requests", REQUESTS),
    UploadMethod("dify-dataset-sdk, threads", "dataset_sdk", "dify-dataset-sdk", DATASET_SDK),
    UploadMethod(OAPI2, "oapi2", "dify-oapi2", OAPI),
    UploadMethod("dify-python-sdk, threads", "python_sdk", "dify-python-sdk", PYTHON_SDK),
    UploadMethod("dify-python-sdk, async", "python_sdk", "dify-python-sdk, async", PYTHON_SDK),
)

JSON_LOADS = "json.loads"
PACED = UploadMethod(OWN_PACE, "dify_kb", "load own pace")
"""Only compared on servers with a latency."""

DECODERS: Sequence[UploadMethod] = (
    UploadMethod(JSON_LOADS, "sockets", "json"),
    UploadMethod("dify-kb", "dify_kb", "dify-kb"),
    UploadMethod("dify-dataset-sdk", "dataset_sdk", "dify-dataset-sdk", DATASET_SDK),
    UploadMethod("dify-oapi2", "oapi2", "dify-oapi2", OAPI),
)

IMPORTS: Mapping[str, tuple[str, Sequence[str]]] = {
    **{case: (case, ()) for case in import_time.CASES},
    "import httpx": ("import httpx", HTTPX),
    "import requests": ("import requests", REQUESTS),
    "dify-dataset-sdk": ("from dify_dataset_sdk import DifyDatasetClient", DATASET_SDK),
    "dify-oapi2": ("from dify_oapi.client import Client", OAPI),
    "dify-python-sdk": ("from dify_client import KnowledgeBaseClient", PYTHON_SDK),
}
"""Import statements, and the requirements of their environments."""


@frozen
class MethodRunner:
    """A runner of methods in their environments, which are created in `folder` if missing.

    `environments` has those used so far.
    """

    folder: Path
    timeout: float = 300.0
    """Seconds after which a method is killed."""

    environments: dict[tuple[str, ...], VirtualEnvironment] = field(factory=dict)

    def environment(self, needs: Sequence[str]) -> VirtualEnvironment:
        """Return an environment, and create it if it does not exist."""
        key = tuple(needs)
        if key not in self.environments:
            self.environments[key] = create_environment(needs, self.folder)
        return self.environments[key]

    def send(self, method: UploadMethod, job: Mapping[str, object]) -> Mapping[str, Any]:
        """Run a job in a separate process; an error is returned as `problem`."""
        return self._run(method, json.dumps(job))

    def decode(self, method: UploadMethod, page: Path) -> Mapping[str, Any]:
        """Measure the decoding of a page of a document list."""
        return self._run(method, "--decode", str(page))

    def _run(self, method: UploadMethod, *arguments: str) -> Mapping[str, Any]:
        environment = self.environment(method.needs)
        if environment.problem is not None:
            return {"problem": environment.problem}
        script = PEERS / f"with_{method.script}.py"
        try:
            run = subprocess.run(
                [environment.python, script, method.name, *arguments],
                env=process_environment(own=not method.needs),
                capture_output=True,
                text=True,
                check=False,
                timeout=self.timeout,
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"took longer than {self.timeout:.0f} s"}
        try:
            result: Mapping[str, Any] = json.loads(run.stdout)
        except ValueError:
            return {"problem": (run.stderr.splitlines() or ["exited without output"])[-1]}
        return result


def process_environment(*, own: bool) -> dict[str, str]:
    """Return environment variables without a proxy; with `own`, with the path of this package."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = {"PYTHONPATH": str(Path(dify_kb.__file__).parent.parent)} if own else {}
    return {**variables, **path, "NO_PROXY": "127.0.0.1"}
