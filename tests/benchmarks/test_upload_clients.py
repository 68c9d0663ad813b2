"""Every method uploads every file, or reports why it cannot be measured."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import client_comparison
import null_server
import pytest
import upload_clients
from virtual_environments import create_environment, find_pip_error

from dify_kb import Client

OWN = [
    method for method in [*upload_clients.UPLOAD_METHODS, upload_clients.PACED] if not method.needs
]
DATASET = "11111111-1111-4111-8111-222222222222"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with null_server.run_in_process() as address:
        yield address


def create_job(url: str, folder: Path, **more: object) -> dict[str, object]:
    for name in ("few", "files"):
        (folder / name).mkdir()
    for number in range(20):
        (folder / "files" / f"{number}.txt").write_bytes(b"A line of text.\n" * 256)
    (folder / "few" / "0.txt").write_bytes(b"A line of text.\n")
    where = {"folder": str(folder / "files"), "warm_up": str(folder / "few")}
    return {"url": url, "at_once": 4, "dataset": DATASET, **where, **more}


@pytest.mark.parametrize("method", OWN, ids=lambda method: method.label)
def test_every_method_uploads_every_file(
    method: upload_clients.UploadMethod, url: str, tmp_path: Path
) -> None:
    """Otherwise its figures would be meaningless."""
    result = upload_clients.MethodRunner(tmp_path).send(
        method, create_job(url, tmp_path, held=True, lag=True)
    )

    assert result.get("problem") is None
    assert result["uploads"] == 20
    assert result["cpu"] > 0
    assert result["wall"] > 0
    assert result["resident"] > 2**20


def test_files_read_from_disk_arrive_complete(url: str, tmp_path: Path) -> None:
    """Bare sockets use `sendfile`, which sends as much as the socket accepts."""
    large = tmp_path / "files" / "large.txt"
    task = create_job(url, tmp_path)
    large.write_bytes(b"x" * 5_000_000)

    result = upload_clients.MethodRunner(tmp_path).send(OWN[0], task)

    assert result["uploads"] == 21


def test_failing_method_reports_its_error(tmp_path: Path) -> None:
    (tmp_path / "free").mkdir()

    result = upload_clients.MethodRunner(tmp_path).send(
        OWN[1], create_job("http://127.0.0.1:1/v1", tmp_path / "free")
    )

    assert result["problem"].startswith("ClientConnectorError: ")


def test_package_that_cannot_be_installed_is_reported(tmp_path: Path) -> None:
    """No method is omitted silently."""
    (tmp_path / "taken").touch()
    peer = upload_clients.UploadMethod("peer", "httpx", "httpx", ("httpx==0.28.1",))

    result = upload_clients.MethodRunner(tmp_path / "taken").send(peer, {})

    assert result["problem"].startswith("could not be installed: ")
    assert "taken" in result["problem"]


def test_pip_error_is_quoted() -> None:
    output = "WARNING: slow\nERROR: No matching distribution found for peer==9\n"
    error = subprocess.CalledProcessError(1, ["pip"], stderr=output)

    assert find_pip_error(error) == "ERROR: No matching distribution found for peer==9"


def test_own_methods_need_no_virtual_environment(tmp_path: Path) -> None:
    assert create_environment((), tmp_path).python == sys.executable
    assert list(tmp_path.iterdir()) == []


def test_null_server_lists_created_documents(url: str, tmp_path: Path) -> None:
    """A load can follow the indexing as on a real server."""
    upload_clients.MethodRunner(tmp_path).send(
        OWN[1], create_job(url, tmp_path, dataset=null_server.DATASET_ID)
    )

    with Client(url, "key") as client:
        dataset = client.datasets.get(null_server.DATASET_ID)
        documents = list(client.documents.iter(null_server.DATASET_ID))

    assert dataset.document_count == len(documents) == 21
    assert len({document.id for document in documents}) == 21
    assert {document.indexing_status for document in documents} == {"completed"}


def test_null_server_reports_its_cpu_time(url: str) -> None:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/_spent") as response:  # noqa: S310 -- ours
        assert json.load(response)["cpu"] > 0


def test_run_is_saved_with_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.json"

    client_comparison.main(
        ["--quick", "--only", "blocking", "--json", str(run), "--venvs", str(tmp_path)]
    )

    result = json.loads(run.read_text())
    assert {"at", "commit", "machine", "python", "versions", "packages"} <= result.keys()
    assert result["tables"]["blocking"]["figures"]["ping, async"]["ratios"]["ping, async"] == {
        "median": 1.0,
        "low": 1.0,
        "high": 1.0,
        "count": 3,
    }
    assert "overhead of a blocking call, ms" in capsys.readouterr().out
