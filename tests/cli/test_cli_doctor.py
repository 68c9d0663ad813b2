"""`doctor` names the setting that holds a load back."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import field, frozen
from cli_runner import Cli, Program, Shell, called_endpoints, parse_json_lines

from dify_kb import AsyncClient, Client
from dify_kb.bench.temporary_dataset import PREFIX
from dify_kb.cli.doctor import AttemptLog
from dify_kb.emulator import Emulator, Settings

MIB = 2**20
LIMIT = 25  # seconds, for a busy machine


@frozen(kw_only=True)
class Case:
    """A fault of a server, and the check that must find it."""

    check: str
    settings: tuple[str, ...] = ()
    detail: str = ""
    status: str = "warning"
    server: Settings = field(factory=Settings)
    faults: Mapping[str, list[str]] = field(factory=dict)
    indexing: list[str] = field(factory=list)
    models: list[str] = field(factory=list)
    version: str = "1.16"


CASES = {
    "one worker": Case(
        check="worker",
        settings=("CELERY_WORKER_AMOUNT",),
        detail="1 document indexed at a time",
        server=Settings(workers=1, indexing=0.3),
    ),
    "small body": Case(
        check="file size",
        settings=("NGINX_CLIENT_MAX_BODY_SIZE", "client_max_body_size"),
        detail="a proxy refuses bodies of more than 3.75 MiB (413)",
        server=Settings(max_body=4 * MIB),
    ),
    "small files": Case(
        check="file size",
        settings=("UPLOAD_FILE_SIZE_LIMIT",),
        detail="Dify refuses files of more than 5 MiB",
        server=Settings(max_file_size=5 * MIB),
    ),
    "few connections": Case(
        check="connections",
        settings=("SERVER_WORKER_AMOUNT", "SERVER_WORKER_CONNECTIONS"),
        detail="9 at once",
        server=Settings(connections=9, keep_alive=3.0),
    ),
    "limit_req": Case(
        check="rate limit",
        settings=("limit_req",),
        faults={"documents.create_by_text": ["503-html"]},
    ),
    "proxy timeout": Case(
        check="timeouts",
        settings=("NGINX_PROXY_READ_TIMEOUT", "proxy_read_timeout"),
        detail="documents.create_by_file: 504",
        faults={"documents.create_by_file": ["504-html"]},
    ),
    "failing embedding": Case(
        check="embedding",
        settings=("PLUGIN_DAEMON_URL",),
        detail="too busy",
        status="failed",
        models=["error too busy x50"],
    ),
    "no plugin daemon": Case(
        check="plugin daemon",
        settings=("PLUGIN_DAEMON_URL",),
        detail="Failed to request plugin daemon",
        status="failed",
        faults={"datasets.list": ["plugin-daemon x20"]},
    ),
    "failing indexing": Case(
        check="worker", detail="no disk", status="failed", indexing=["error no disk x8"]
    ),
    "no models": Case(check="text-embedding models", server=Settings(models=False)),
    "old version": Case(check="known bugs", detail="blocks the worker", version="1.12.1"),
}


def run_doctor(cli: Cli, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, _ = cli("--json", "doctor", *arguments)
    return code, {row["check"]: row for row in parse_json_lines(out)}


def list_dataset_names(emulator: Emulator) -> list[str]:
    with Client(emulator.url, emulator.api_key) as client:
        return [row.name for row in client.datasets.iter()]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trial_finds_the_setting_of_a_fault(shell: Shell, case: Case) -> None:
    """Nothing else is found: each fault has one check."""
    with Emulator(settings=case.server, version=case.version) as emulator:
        for endpoint, words in case.faults.items():
            emulator.faults.plan(endpoint, words)
        if case.indexing:
            emulator.faults.indexing(case.indexing)
        if case.models:
            emulator.faults.models(case.models)

        code, checks = run_doctor(shell(emulator), "--trial")

        emulator.faults.clear()
        assert list_dataset_names(emulator) == []
    found = checks[case.check]
    assert found["status"] == case.status
    assert tuple(found["settings"]) == case.settings
    assert case.detail in found["detail"]
    assert found["remedy"]
    assert all(setting.split()[0] in found["remedy"] for setting in case.settings[:1])
    assert (code == 0) == all(row["status"] != "failed" for row in checks.values())
    if case.version == "1.16" and case.check not in {"timeouts", "text-embedding models"}:
        others = [name for name, row in checks.items() if row["status"] != "ok"]
        assert others == [case.check]


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(workers=4, indexing=0.6), Settings.pods(4, 10)],
    ids=["fast", "four workers", "four processes"],
)
def test_healthy_server_has_no_finding(shell: Shell, settings: Settings) -> None:
    with Emulator(settings=settings) as emulator:
        code, checks = run_doctor(shell(emulator), "--trial")

        assert list_dataset_names(emulator) == []
    assert code == 0
    assert {row["status"] for row in checks.values()} == {"ok"}
    if settings.indexing:
        assert checks["worker"]["detail"].startswith("4 documents indexed at a time")


def test_without_trial_nothing_is_written(cli: Cli, emulator: Emulator) -> None:
    code, checks = run_doctor(cli)

    assert code == 0
    assert list(checks) == [
        "address", "version", "known bugs", "key", "text-embedding models", "rerank models",
        "clock", "file size",
    ]  # fmt: skip
    assert called_endpoints(emulator) == [
        "server.info", "datasets.list", "datasets.list", "workspace.models", "workspace.models",
    ]  # fmt: skip


def test_a_wrong_path_fails_the_address_and_not_the_key(cli: Cli, emulator: Emulator) -> None:
    """The key is not checked at an address that has no Knowledge API."""
    address = emulator.url.removesuffix("/v1") + "/console"

    code, out, _ = cli("--url", address, "--api-key", emulator.api_key, "doctor")

    assert code == 1
    assert out.startswith("failed  address: ")
    assert "Check the base URL" in out
    assert "key" not in out


def test_trial_says_first_what_it_creates(cli: Cli) -> None:
    _, out, err = cli("doctor", "--trial")

    assert err.startswith("The trial creates temporary datasets (dify-kb-bench-")
    assert "bench clean" in err
    assert "ok      connections: at least 32 at once" in out


def start_stalled_trial(program: Program, emulator: Emulator) -> Any:
    """Start a trial whose documents get no response, and return once its dataset exists."""
    emulator.faults.plan("documents.create_by_text", ["stall 30s"] * 8)
    process = program("doctor", "--trial")
    deadline = time.monotonic() + LIMIT
    while not any(name.startswith(PREFIX) for name in list_dataset_names(emulator)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_bench_clean_deletes_what_a_killed_trial_left(
    program: Program, cli: Cli, emulator: Emulator
) -> None:
    process = start_stalled_trial(program, emulator)
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT)

    assert list_dataset_names(emulator) != []
    assert cli("bench", "clean", "--yes")[0] == 0
    assert list_dataset_names(emulator) == []


def test_interrupted_trial_leaves_nothing(program: Program, emulator: Emulator) -> None:
    process = start_stalled_trial(program, emulator)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == 130
    assert "Deleting the temporary datasets" in err
    assert list_dataset_names(emulator) == []


@pytest.mark.parametrize(
    ("skew", "status", "detail"),
    [(0, "ok", "agree"), (120, "warning", "120 s ahead"), (-90, "warning", "90 s behind")],
)
async def test_clock_of_the_server_is_compared(
    emulator: Emulator, skew: float, status: str, detail: str
) -> None:
    log = AttemptLog(now=lambda: time.time() - skew)
    async with AsyncClient(emulator.url, emulator.api_key, on_event=log.record) as client:
        await client.datasets.list()

    check = log.check_clock()

    assert check.status == status
    if status == "ok":
        assert detail in check.detail
    else:
        number, words = detail.split(" ", 1)
        assert words in check.detail
        found = int(check.detail.split("server is ")[1].split(" s")[0])
        assert abs(found - int(number)) <= 5
