"""The blocking client at exit, Ctrl-C and fork. Each test runs a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import dedent

import pytest

from dify_kb.emulator import Emulator

TIMEOUT = 30
"""Timeout of a program in seconds; a hanging program is killed and fails its test."""

PREAMBLE = """
import gc, os, signal, sys, threading, time
from dify_kb import ConfigError
from dify_kb import Client
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
"""The last line is needed because shells start background jobs with interrupts ignored."""


@contextmanager
def start_program(emulator: Emulator, text: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program in which all warnings are errors, also those of unclosed resources."""
    environment = {
        **os.environ,
        "DIFY_BASE_URL": emulator.url,
        "DIFY_API_KEY": emulator.api_key,
    }
    with subprocess.Popen(  # noqa: S603 -- our own interpreter and code
        [sys.executable, "-W", "error", "-c", PREAMBLE + dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_program(emulator: Emulator, text: str) -> str:
    """Return the output of a program, which must neither hang nor print errors."""
    with start_program(emulator, text) as process:
        output, errors = process.communicate(timeout=TIMEOUT)
    assert errors == ""
    assert process.returncode == 0
    return output


def wait_until_call_arrived(emulator: Emulator) -> None:
    """Wait until the server has received the stalled call."""
    limit = time.monotonic() + TIMEOUT
    while emulator.faults.left():
        assert time.monotonic() < limit
        time.sleep(0.005)


LEFT_OPEN = {
    "a client": "client.datasets.list()",
    "an iterator": "rows = client.datasets.iter(); next(rows)",
    "a view": "view = client.with_options(); view.ping()",
    "nothing": "client = None; gc.collect()",
    "an embedded server": "embedded = Client('emulator:'); embedded.ping()",
    "a method": "call = client.ping; call(); del client",
    "a cycle": "client.self = client; client.ping()",
}


def test_an_exit_with_a_client_left_open_is_quick_and_quiet(emulator: Emulator) -> None:
    """Scripts often do not close their client, but must end after their last line.

    Each script is a fork of one process that has imported the package, but has no threads.
    """
    output = run_program(
        emulator,
        f"""
        for name, text in {LEFT_OPEN}.items():
            started = time.monotonic()
            child = os.fork()
            if child == 0:
                client = Client()
                client.datasets.create(name)
                exec(text)
                sys.exit()
            code = os.waitpid(child, 0)[1]
            print(name, code, time.monotonic() - started < 12, sep=", ", flush=True)
        """,
    )

    assert output == "".join(f"{name}, 0, True\n" for name in LEFT_OPEN)


def test_an_exit_cancels_what_a_daemon_thread_waits_for(emulator: Emulator) -> None:
    """The server stalls for longer than users would wait."""
    emulator.faults.plan("datasets.list", ["stall 15"])
    started = time.monotonic()
    output = run_program(
        emulator,
        """
        client = Client()
        def work():
            try:
                client.datasets.list()
            except Exception as error:
                pass
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        """,
    )

    assert output == ""
    assert emulator.faults.left() == {}
    assert time.monotonic() - started < 12


def test_a_crash_shows_its_own_traceback_alone(emulator: Emulator) -> None:
    """Errors about unclosed resources must not hide the error of the program."""
    with start_program(emulator, "client = Client()\nclient.ping()\n1 / 0") as process:
        _, errors = process.communicate(timeout=TIMEOUT)

    assert errors.endswith("ZeroDivisionError: division by zero\n")
    assert errors.count("Traceback") == 1
    assert process.returncode == 1


@pytest.mark.parametrize("call", ["client.datasets.list()", "list(client.datasets.iter())"])
def test_ctrl_c_ends_the_call_at_once(emulator: Emulator, call: str) -> None:
    """The call is cancelled, and the client remains usable."""
    emulator.faults.plan("datasets.list", ["stall 15"])
    with start_program(
        emulator,
        """
        import asyncio
        client = Client()
        client.workspace.models("llm")
        running = lambda: client._loop.run(count)
        async def count():
            return len(asyncio.all_tasks())
        idle = running()
        try:
            CALL
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        time.sleep(0.2)
        print(running() - idle, client.ping().server_version)
        """.replace("CALL", call),
    ) as process:
        wait_until_call_arrived(emulator)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.monotonic() - started
        output, errors = process.communicate(timeout=TIMEOUT)

    assert line == "interrupted\n"
    assert seconds < 8
    assert output == "0 1.16\n"
    assert errors == ""


def test_ctrl_c_that_nobody_catches_ends_the_program(emulator: Emulator) -> None:
    """The program ends as usual: quickly, by the signal, with Python's traceback."""
    emulator.faults.plan("datasets.list", ["stall 15"])
    with start_program(
        emulator, "with Client() as client: list(client.datasets.iter())"
    ) as process:
        wait_until_call_arrived(emulator)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)

    assert time.monotonic() - started < 8
    assert errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT


def test_a_forked_process_raises_instead_of_hanging(emulator: Emulator) -> None:
    """Threads do not survive a fork. The parent's calls continue on its own connections."""
    output = run_program(
        emulator,
        """
        with Client() as client:
            client.datasets.create("one")
            rows = client.datasets.iter()
            next(rows)
            child = os.fork()
            if child == 0:
                for call in (client.ping, lambda: list(rows), lambda: client.datasets):
                    try:
                        call()
                    except ConfigError as error:
                        print("forked" in str(error), flush=True)
                gc.collect()
            else:
                os.waitpid(child, 0)
                print(client.datasets.list().total, list(rows))
        if child == 0:
            sys.exit()
        print(threading.active_count())
        """,
    )

    assert output.split("\n") == ["True", "True", "True", "1 []", "1", ""]


def test_a_fork_before_the_first_call_does_no_harm(emulator: Emulator) -> None:
    """Servers import an application with its client, and then fork their workers."""
    output = run_program(
        emulator,
        """
        client = Client()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        print(client.ping().server_version, flush=True)
        """,
    )

    assert output == "1.16\n1.16\n"


def test_nothing_is_left_after_close(emulator: Emulator) -> None:
    """`close` leaves no thread, socket or other open file."""
    output = run_program(
        emulator,
        """
        with Client() as client:
            client.ping()
        files = lambda: sorted(os.listdir("/proc/self/fd"))
        before = files()
        for _ in range(3):
            with Client() as client:
                list(client.datasets.iter())
        print(threading.active_count(), files() == before)
        """,
    )

    assert output == "1 True\n"
