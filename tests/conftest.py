from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from command_server import ForkedProgram, command_server

from dify_kb import AsyncClient, Policy
from dify_kb.cli import run
from dify_kb.emulator import Emulator

LONG = os.environ.get("CHAOS") == "long"
hypothesis.settings.register_profile("tests", deadline=None, max_examples=200 if LONG else 40)
hypothesis.settings.load_profile("tests")

# The processes that the tests start use cached bytecode, like those of users.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def _user_folders_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals, profiles and caches in temporary folders instead of the user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("DIFY_PROFILE", "DIFY_DATASET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def quick() -> Policy:
    """Return the default policy with delays scaled to a hundredth."""
    return Policy().scaled(0.01)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Start an emulator on a real socket for each test."""
    with Emulator() as server:
        yield server


@pytest.fixture
async def client(emulator: Emulator, quick: Policy) -> AsyncIterator[AsyncClient]:
    """Return an open client of the emulator."""
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder to load."""
    path = tmp_path / "docs"
    path.mkdir()
    return path


@pytest.fixture
def shell(
    quick: Policy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Emulator], Callable[..., tuple[int, str, str]]]:
    """Return a function that creates a `cli` for another server."""
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
    """Return a function that runs a command against the emulator.

    The function returns exit code, stdout and stderr.
    """
    return shell(emulator)


@pytest.fixture
def docs(folder: Path) -> Path:
    """Return a folder with two supported files and an unsupported one."""
    (folder / "sub").mkdir()
    (folder / "reset.md").write_text("Hold the red button for ten seconds to reset the device.")
    (folder / "sub" / "notes.txt").write_text("Wombats dig at night.")
    (folder / "tool.exe").write_text("binary")
    return folder


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """Start the process whose forks run programs; return the folder of `dify-kb`."""
    with command_server(tiny_benchmarks=not LONG) as folder:
        yield folder


@pytest.fixture
def program(
    programs: Path, tmp_path: Path, emulator: Emulator
) -> Iterator[Callable[..., ForkedProgram]]:
    """Return a function that starts `dify-kb` in a process, against the emulator."""
    started: list[ForkedProgram] = []

    def start(*arguments: str, uvloop: bool = True, stdin: int | None = None) -> ForkedProgram:
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "DIFY_BASE_URL": emulator.url,
            "DIFY_API_KEY": emulator.api_key,
        }
        without = () if uvloop else ("uvloop",)
        process = ForkedProgram(
            programs, arguments, cwd=tmp_path, env=environment, stdin=stdin, without=without
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()


def pytest_collection_finish() -> None:
    """Spare the garbage collector the modules and tests, about a million objects."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of `poe chaos` if it was run."""
    chaos = sys.modules.get("result_table")
    if chaos is not None and chaos.LONG and chaos.ROWS:
        terminalreporter.section("chaos")
        for line in chaos.render_table():
            terminalreporter.write_line(line)
