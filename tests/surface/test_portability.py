"""The package on a platform without what Windows lacks. No test runs on Windows itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_POSIX = """
import asyncio, os, select, signal, subprocess, sys, tempfile, types  # know the platform

for name in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGWINCH"):
    delattr(signal, name)
for name in (
    "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "chown", "fork", "fchmod",
    "fchown", "forkpty", "geteuid", "getgid", "getloadavg", "getuid", "killpg", "mkfifo", "openpty",
    "posix_spawn", "register_at_fork", "sysconf", "uname", "wait",
):
    delattr(os, name)

def refuse(*_):
    raise NotImplementedError

def refuse_pipe(*_):
    raise OSError(10038, "not a socket")

select.select = refuse_pipe

loop = asyncio.SelectorEventLoop  # that of Windows waits for sockets only
loop.add_signal_handler = loop.remove_signal_handler = loop.add_reader = refuse

locked = {}

def locking(descriptor, mode, size):
    # One lock a file, whoever asks.
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 1 << 30
    file = os.fstat(descriptor).st_ino
    if mode == msvcrt.LK_UNLCK:
        assert locked.pop(file) == descriptor
    elif file in locked:
        raise PermissionError(13, "Permission denied")
    else:
        locked[file] = descriptor

msvcrt = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)
sys.modules["msvcrt"] = msvcrt
"""


def run(program: str, *arguments: str, answer: str = "") -> str:
    """Run a program without POSIX; return its output."""
    done = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, "-c", WITHOUT_POSIX + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        input=answer,
        timeout=100,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


IMPORT_EVERYTHING = """
import importlib, pkgutil, dify_kb

names = [one.name for one in pkgutil.walk_packages(dify_kb.__path__, "dify_kb.")]
for name in names:
    importlib.import_module(name)
for name in dify_kb.__all__:
    getattr(dify_kb, name)
print(len(names) > 200)
"""

LOAD = """
import anyio, dify_kb
from pathlib import Path

async def main():
    folder = Path(sys.argv[1])
    async with dify_kb.AsyncClient("emulator:") as client:
        dataset = await client.datasets.create("docs", indexing_technique="economy")
        items = [dify_kb.Item(f"{number}.md", text="text") for number in range(3)]
        assert (await client.load(dataset, items)).added == 3
        for _ in range(2):
            report = await client.load(dataset, folder / "docs", journal=folder / "journal.db")
            assert report, report
        assert not locked
        return report.unchanged

print(anyio.run(main))
"""

BLOCKING_LOAD = """
import dify_kb
with dify_kb.Client("emulator:") as client:
    dataset = client.datasets.create("docs", indexing_technique="economy")
    client.documents.create_by_file(dataset, sys.argv[1] + "/docs/a.md")
    print(client.load(dataset, sys.argv[1] + "/docs").added, client.documents.list(dataset).total)
"""

LOCK_TWICE = """
import anyio
from pathlib import Path
from dify_kb import JournalError
from dify_kb.ingest.journal import open_journal

async def main():
    path = Path(sys.argv[1]) / "journal.db"
    async with open_journal(path, {}):
        try:
            async with open_journal(path, {}):
                pass
        except JournalError as error:
            print(error.summary)

anyio.run(main)
"""

RUN_COMMANDS = """
from dify_kb.cli import run
url = ["--url", "emulator:" + sys.argv[1] + "/server.db"]
docs = ["--dataset", "docs"]
assert run(["--help"]) == 0
assert run([*url, "load", sys.argv[1] + "/docs", *docs, "--create"]) == 0
assert run([*url, "search", *docs, "red button"]) == 0
assert run([*url, "journal", "show", *docs]) in {0, 1, 2}
sys.stdin.isatty = lambda: True
assert run([*url, "documents", "delete", *docs, "--all"]) == 0
assert run([*url, "documents", "list", *docs, "--json"]) == 0
"""

READ_LIST = """
from dify_kb.cli import run
docs = ["--dataset", "docs", "--create"]
url = ["--url", "emulator:"]
assert run([*url, "load", sys.argv[1] + "/docs", *docs, "--files-from", "-"]) == 0
"""


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("Hold the red button.")
    return str(tmp_path)


def test_every_module_is_imported_without_posix() -> None:
    assert run(IMPORT_EVERYTHING) == "True"


def test_files_are_loaded_without_posix(place: str) -> None:
    assert run(LOAD, place) == "1"


def test_the_blocking_client_works_without_posix(place: str) -> None:
    """The load finds the document with the name of the file, and replaces it."""
    assert run(BLOCKING_LOAD, place) == "0 1"


def test_a_journal_is_locked_without_posix(place: str) -> None:
    assert "in use by another load of this process" in run(LOCK_TWICE, place)


def test_commands_run_without_posix(place: str) -> None:
    """Including a confirmation, which is read in a thread there."""
    printed = run(RUN_COMMANDS, place, answer="y\n")

    assert "Usage: dify-kb" in printed
    assert "Hold the red button." in printed
    assert "1 added" in printed
    assert not printed.endswith("}")


def test_a_list_is_read_from_a_pipe_without_select(place: str) -> None:
    assert "1 added" in run(READ_LIST, place, answer="a.md\n")
