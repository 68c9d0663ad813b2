"""The `dify-kb emulator` command: fault plans as JSON, as a file and on standard input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from command_server import ForkedProgram

from dify_kb.cli.emulator import _read_fault_plans

PLANS = {"server.info": ["503 x2"], "indexing": ["hang"]}


@contextmanager
def run_command(programs: Path, folder: Path, *arguments: str) -> Iterator[ForkedProgram]:
    process = ForkedProgram(
        programs,
        ["--json", "emulator", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.close()


async def read_state(process: ForkedProgram) -> object:
    """Send one request, then return the state of the fault plans."""
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/") as reply:
            assert reply.status == 503
        async with session.get(url.removesuffix("/v1") + "/_emulator/faults") as reply:
            return await reply.json()


EXPECTED = {
    "left": {"server.info": ["503"], "indexing": ["hang"]},
    "met": {"server.info": {"503": 1}},
}


def test_faults_option_accepts_json_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(PLANS))

    assert _read_fault_plans(json.dumps(PLANS)) == _read_fault_plans(str(path)) == PLANS


async def test_faults_option_reads_standard_input(programs: Path, tmp_path: Path) -> None:
    with run_command(programs, tmp_path, "--faults", "-") as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(PLANS))
        process.stdin.close()
        process.stdin = None
        assert await read_state(process) == EXPECTED


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ('{"server.info": ["explode"]}', "Unknown fault 'explode'"),
        ("{no json", "Cannot read fault plans from '{no json'"),
        ("no/such/file.json", "Cannot read fault plans from 'no/such/file.json'"),
    ],
)
def test_invalid_fault_plan_is_a_usage_error(
    cli: Callable[..., tuple[int, str, str]], plan: str, message: str
) -> None:
    code, _, err = cli("emulator", "--port", "0", "--faults", plan)

    assert code == 2
    assert message in err
    assert "Traceback" not in err
