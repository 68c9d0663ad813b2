from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dify_kb import AsyncClient, Policy
from dify_kb.cli import run
from dify_kb.emulator import Emulator


@pytest.fixture(autouse=True)
def _journals_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the journals of loads away from those of the user."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def quick() -> Policy:
    """The client's times, a hundredth of those that users have."""
    return Policy().scaled(0.01)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A server of its own for each test, on a real socket."""
    with Emulator() as server:
        yield server


@pytest.fixture
async def client(emulator: Emulator, quick: Policy) -> AsyncIterator[AsyncClient]:
    """A client of that server, open."""
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder to load."""
    path = tmp_path / "docs"
    path.mkdir()
    return path


@pytest.fixture
def shell(
    quick: Policy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Emulator], Callable[..., tuple[int, str, str]]]:
    """Makes a `cli` of another server."""
    monkeypatch.setenv("COLUMNS", "80")

    def of(server: Emulator) -> Callable[..., tuple[int, str, str]]:
        monkeypatch.setenv("DIFY_BASE_URL", server.url)
        monkeypatch.setenv("DIFY_API_KEY", server.api_key)

        def call(*arguments: str) -> tuple[int, str, str]:
            capsys.readouterr()
            code = run(arguments, policy=quick)
            shown = capsys.readouterr()
            return code, shown.out, shown.err

        return call

    return of


@pytest.fixture
def cli(
    shell: Callable[[Emulator], Callable[..., tuple[int, str, str]]], emulator: Emulator
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command against the emulator; gives exit code, stdout and stderr."""
    return shell(emulator)


@pytest.fixture
def docs(folder: Path) -> Path:
    """A folder with two files that load and one that does not."""
    (folder / "sub").mkdir()
    (folder / "reset.md").write_text("Hold the red button for ten seconds to reset the device.")
    (folder / "sub" / "notes.txt").write_text("Wombats dig at night.")
    (folder / "tool.exe").write_text("binary")
    return folder


PLAIN_LOOP = "import sys; sys.modules['uvloop'] = None; from dify_kb.__main__ import main; main()"
"""The program where uvloop is not installed."""


@pytest.fixture
def program(tmp_path: Path, emulator: Emulator) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m dify_kb` in a process of its own, against the emulator."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, uvloop: bool = True) -> subprocess.Popen[str]:
        process = subprocess.Popen(  # noqa: S603 -- our own program
            [sys.executable, *(("-m", "dify_kb") if uvloop else ("-c", PLAIN_LOOP)), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "DIFY_BASE_URL": emulator.url,
                "DIFY_API_KEY": emulator.api_key,
            },
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of `poe chaos`, where that ran."""
    chaos = sys.modules.get("result_table")
    if chaos is not None and chaos.LONG and chaos.ROWS:
        terminalreporter.section("chaos")
        for line in chaos.render_table():
            terminalreporter.write_line(line)
