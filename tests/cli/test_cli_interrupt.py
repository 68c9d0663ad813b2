"""Signals and closed pipes. Each test runs the program in a subprocess."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import Cli, Program, parse_json_lines

from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import JournalState, read_journal

CREATE = "documents.create_by_file"

LIMIT = 30


def until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.01)


def files(folder: Path, number: int) -> None:
    for index in range(number):
        (folder / f"{index:03}.md").write_text(f"the text of {index}")


def under_way(emulator: Emulator, *, left: int) -> None:
    """Wait until a create request has met its fault, that is, reached the server."""
    until(lambda: sum(map(len, emulator.faults.left().values())) <= left)


def states() -> dict[JournalState, int]:
    (journal,) = read_journal.list_journals(state_folder())
    counts = read_journal.read_overview(journal).states
    return {state: count for state, count in counts.items() if count}


def resuming(err: str) -> list[str]:
    """Return the command line that an interrupted load prints to resume it."""
    *_, line = err.strip().splitlines()
    name, *arguments = shlex.split(line)
    assert name == "dify-kb"
    return arguments


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_program_without_traceback(
    program: Program, number: signal.Signals, code: int
) -> None:
    process = program("--json", "emulator", "--port", "0")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["type"] == "emulator"

    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == code
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_a_program_that_waits_for_its_key(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """The first one, although `key_command` blocks the event loop; and it ends the command, too."""
    folder, waiting = tmp_path / "dify-kb", tmp_path / "waiting"
    folder.mkdir()
    script = f"touch {waiting}; exec sleep 60"
    (folder / "config.toml").write_text(
        f'[a]\nurl = "http://a.test"\nkey_command = "sh -c \'{script}\'"\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    process = program("--profile", "a", "datasets", "list")
    until(waiting.exists)

    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == code
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "code", "uvloop"),
    [
        pytest.param(signal.SIGINT, 130, True, id="Ctrl-C, uvloop"),
        pytest.param(signal.SIGTERM, 143, False, id="SIGTERM, asyncio"),
    ],
)
def test_first_signal_finishes_uploads_and_prints_resume_command(
    program: Program,
    cli: Cli,
    folder: Path,
    emulator: Emulator,
    number: signal.Signals,
    code: int,
    uvloop: bool,  # noqa: FBT001 -- of the parameters
) -> None:
    """Waiting for a response costs less than finding out what a lost request did."""
    files(folder, 30)
    emulator.faults.plan(CREATE, ["stall 0.5"] * 60)
    process = program("load", str(folder), "--dataset", "my d", "--create", uvloop=uvloop)
    under_way(emulator, left=57)

    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)

    assert process.returncode == code
    assert "Finishing uploads in flight" in err
    assert "Traceback" not in err
    assert re.search(r"Interrupted\. \d+ of 30 files finished", err)
    reached = states()
    assert JournalState.SENDING not in reached
    emulator.faults.clear()
    again, out, _ = cli(*resuming(err))
    assert again == 0
    assert (
        f"{reached.get(JournalState.DONE, 0)} unchanged" in out or JournalState.DONE not in reached
    )
    creates = sum(call.endpoint == CREATE for call in emulator.history)
    assert creates == 30
    assert states() == {JournalState.DONE: 30}


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
def test_second_signal_ends_the_process_immediately(
    program: Program,
    cli: Cli,
    folder: Path,
    emulator: Emulator,
    uvloop: bool,  # noqa: FBT001
) -> None:
    """The second Ctrl-C does not wait 10 s for uploads; the journal is as after kill -9."""
    files(folder, 3)
    emulator.faults.plan(CREATE, ["stall 15"] * 3)
    process = program("load", str(folder), "--dataset", "d", "--create", uvloop=uvloop)
    under_way(emulator, left=2)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    until(lambda: "Finishing" in (process.stderr.readline() if process.stderr else ""))
    started = time.monotonic()

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)

    assert time.monotonic() - started < 8
    assert process.returncode == 130
    assert "Traceback" not in err
    assert JournalState.SENDING in states()
    _, out, _ = cli(*resuming(err), "--dry-run")
    assert "add     000.md\n" in out


def test_interrupted_load_writes_its_page(
    program: Program, folder: Path, emulator: Emulator, tmp_path: Path
) -> None:
    files(folder, 10)
    html = tmp_path / "load.html"
    emulator.faults.plan(CREATE, ["stall 0.5"] * 10)
    process = program("load", str(folder), "--dataset", "d", "--create", "--html", str(html))
    under_way(emulator, left=9)

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)

    page = html.read_text()
    assert "The run was interrupted; the same command resumes it." in page
    assert "of 10 files are in d" in page


def test_interrupted_load_prints_its_counts_as_json(
    program: Program, folder: Path, emulator: Emulator
) -> None:
    files(folder, 10)
    emulator.faults.plan(CREATE, ["stall 0.5"] * 10)
    process = program("--json", "load", str(folder), "--dataset", "d", "--create")
    under_way(emulator, left=9)

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT)

    last = parse_json_lines(out)[-1]
    assert (last["type"], last["exit"], last["found"]) == ("interrupted", 143, 10)
    assert last["accepted"] >= 1


def test_signal_ends_a_load_with_a_silent_list(
    program: Program, folder: Path, emulator: Emulator
) -> None:
    """Reading a silent pipe blocks a thread, which must not keep the process alive."""
    files(folder, 1)
    process = program("load", str(folder), "--dataset", "d", "--create", "--files-from", "-")
    assert process.stdin is not None
    process.stdin.write("000.md\n")
    process.stdin.flush()
    until(lambda: any(call.endpoint == "datasets.create" for call in emulator.history))

    process.send_signal(signal.SIGINT)
    process.wait(timeout=LIMIT)

    assert process.returncode == 130


@pytest.mark.parametrize("command", ["load", "export"])
def test_closed_pipe_ends_the_load_without_traceback(
    program: Program, cli: Cli, folder: Path, command: str
) -> None:
    files(folder, 120)
    if command == "load":
        process = program("--json", "load", str(folder), "--dataset", "d", "--create")
    else:
        cli("load", str(folder), "--dataset", "d", "--create", "-q")
        (journal,) = read_journal.list_journals(state_folder())
        process = program("journal", "export", str(journal))
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # less than the output
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None

    err = process.stderr.read()
    process.wait(timeout=LIMIT)

    assert process.returncode == 141
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_bars_leave_a_margin_for_the_terminal(
    folder: Path, emulator: Emulator, tmp_path: Path
) -> None:
    """`^C` after a full line would wrap, and a second copy of a bar would stay on the screen."""
    files(folder, 10)
    emulator.faults.plan(CREATE, ["stall 0.3"] * 10)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = ["load", str(folder), "--dataset", "d", "--create", "--url", emulator.url]
    with subprocess.Popen(  # noqa: S603 -- our own program
        [sys.executable, "-m", "dify_kb", *arguments, "--api-key", emulator.api_key],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80"},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        under_way(emulator, left=8)
        process.send_signal(signal.SIGINT)
        shown = _all_of(ours)
        process.wait(timeout=LIMIT)

    assert process.returncode == 130
    assert "upload" in shown
    assert "\x1b[?25h" in shown
    assert "dataset-emulator" not in shown
    bars = [line for line in re.split(r"[\r\n]+", _plain(shown)) if "━" in line]
    assert bars
    assert max(map(len, bars)) <= 75


def _all_of(descriptor: int) -> str:
    shown = b""
    while True:
        try:
            block = os.read(descriptor, 4096)
        except OSError:  # Linux says so when the last writer has gone
            block = b""
        if not block:
            os.close(descriptor)
            return shown.decode()
        shown += block


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
