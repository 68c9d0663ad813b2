"""Confirmation of deletions on a terminal, and deletions whose output pipe is closed."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_runner import Program, create_dataset_with_documents, list_document_names
from command_server import ForkedProgram

from dify_kb import Client
from dify_kb.emulator import Emulator

WHERE = ["--dataset", "base"]

Started = Callable[..., tuple[ForkedProgram, int]]


@pytest.fixture
def terminal(program: Program) -> Iterator[Started]:
    """Yield a function that starts the program on a pseudo-terminal and returns both."""
    opened: list[int] = []

    def start(*arguments: str) -> tuple[ForkedProgram, int]:
        ours, theirs = pty.openpty()
        process = program(*arguments, stdin=theirs)
        os.close(theirs)
        opened.append(ours)
        return process, ours

    yield start
    for ours in opened:
        os.close(ours)


def until_asked(process: ForkedProgram) -> str:
    assert process.stderr is not None
    told = ""
    while not told.endswith("[y/N] "):
        letter = process.stderr.read(1)
        assert letter, told
        told += letter
    return told


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("\n", 1, 2), ("no\n", 1, 2)])
def test_deletion_of_several_requires_confirmation(
    terminal: Started, emulator: Emulator, answer: str, code: int, left: int
) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    process, ours = terminal("documents", "delete", *WHERE, "--all")

    told = until_asked(process)
    os.write(ours, answer.encode())
    _, err = process.communicate(timeout=30)

    assert "  a.txt (" in told
    assert "Delete 2 documents?" in told
    assert process.returncode == code
    assert len(list_document_names(emulator)) == left
    assert ("Nothing was deleted." in err) == (left > 0)
    assert "error:" not in err


def test_ctrl_c_at_the_confirmation_deletes_nothing(terminal: Started, emulator: Emulator) -> None:
    """The process must not wait for a line of input."""
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    process, _ = terminal("documents", "delete", *WHERE, "--all")
    until_asked(process)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(list_document_names(emulator)) == 2


def piped(emulator: Emulator, programs: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {"DIFY_BASE_URL": emulator.url, "DIFY_API_KEY": emulator.api_key}
    return subprocess.run(  # noqa: S603 -- our own program
        ["/bin/sh", "-c", f"{programs}/dify-kb {command}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("options", ["", "--json"])
def test_list_into_a_closed_pipe_ends_without_error(
    emulator: Emulator, programs: Path, options: str
) -> None:
    with Client(emulator.url, emulator.api_key) as client:
        for number in range(150):
            client.datasets.create(f"base {number}")

    ended = piped(emulator, programs, f"datasets list {options} | head -1")

    assert ended.stderr == ""
    assert len(ended.stdout.splitlines()) == 1


def test_deletion_continues_after_a_closed_pipe(emulator: Emulator, programs: Path) -> None:
    """The number of deleted documents must not depend on the size of the pipe's buffer."""
    create_dataset_with_documents(emulator, *(f"{number}.txt" for number in range(20)))

    ended = piped(emulator, programs, "documents delete --dataset base --all --yes | true")

    assert ended.stderr == "20 documents deleted.\n"
    assert list_document_names(emulator) == set()
