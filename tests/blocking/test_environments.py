"""The clients under other event loops, patched threads, forks, notebooks, and at exit.

Each test runs a program in a process of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from textwrap import dedent
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from dify_kb.emulator import Emulator

TIMEOUT = 60

THREADS_ARE_PATCHED = [
    pytest.param("import gevent.monkey; gevent.monkey.patch_all()", id="gevent"),
    pytest.param("import eventlet; eventlet.monkey_patch()", id="eventlet"),
]
THREADS_ARE_KEPT = [
    pytest.param(
        "import gevent.monkey; gevent.monkey.patch_all(thread=False, queue=False)", id="gevent"
    ),
    pytest.param("import eventlet; eventlet.monkey_patch(thread=False)", id="eventlet"),
]


def run_program(emulator: Emulator, text: str, *options: str) -> tuple[str, str]:
    """Run a program against the emulator; return its output and its errors."""
    completed = subprocess.run(  # noqa: S603 -- our own code
        [sys.executable, *options, "-c", dedent(text)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "DIFY_BASE_URL": emulator.url, "DIFY_API_KEY": emulator.api_key},
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, completed.stderr


USE_IN_THREADS_AND_LOAD = """
import threading
from dify_kb import Client, Item

client = Client()
threads = [threading.Thread(target=client.datasets.list) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
dataset = client.datasets.create("docs", indexing_technique="economy")
report = client.load(dataset, [Item("a.md", text="text"), Item("b.md", text="more")])
print(client.server_version, report.added)
"""


TWO_LOOPS = """
from dify_kb import Client, ConfigError
with Client() as client:
    client.ping()
    for address in (None, "emulator:"):
        try:
            Client(address).ping()
        except ConfigError as error:
            print(error.summary)
        print(client.datasets.list().total)
"""


@pytest.mark.parametrize("patch", THREADS_ARE_PATCHED)
def test_a_blocking_client_works_in_patched_programs(emulator: Emulator, patch: str) -> None:
    """Web servers replace the standard library's sockets, and often threads by greenlets.

    The standard library knows one running loop per thread, and greenlets share a thread, so that a
    second client is refused.
    """
    output, errors = run_program(
        emulator, f"{patch}\n{TWO_LOOPS}\n{USE_IN_THREADS_AND_LOAD}\nclient.close()", "-W", "ignore"
    )

    refused, total, refused_too, total_too, used = output.splitlines()
    assert "gevent or eventlet has replaced threads" in refused
    assert refused_too == refused
    assert (total, total_too, used) == ("0", "0", "1.16 2")
    assert errors == ""


TWO_CLIENTS = """
from dify_kb import Client
with Client() as one, Client("emulator:") as two:
    print(one.datasets.list().total, two.datasets.list().total)
"""


@pytest.mark.parametrize("patch", THREADS_ARE_KEPT)
def test_two_clients_work_in_a_patched_program_with_threads(emulator: Emulator, patch: str) -> None:
    """The hint of the error above."""
    output, _ = run_program(
        emulator, f"{patch}\n{TWO_CLIENTS}\n{USE_IN_THREADS_AND_LOAD}\nclient.close()"
    )

    assert output == "0 0\n1.16 2\n"


LOOP_MODULE = """
import asyncio, dify_kb
async def loop_module():
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]
"""


def test_an_installed_uvloop_is_used_only_by_choice(emulator: Emulator) -> None:
    """It hangs under gevent, and kills forked children."""
    output, _ = run_program(
        emulator,
        f"""{LOOP_MODULE}
for loop in (None, "asyncio", "uvloop"):
    with dify_kb.Client(loop=loop) as client:
        print(client._loop.run(loop_module), client.ping().server_version)
try:
    dify_kb.Client(loop="twisted")
except dify_kb.ConfigError as error:
    print(error.summary)
""",
        "-W",
        "error",
    )

    assert output.split("\n") == [
        "asyncio 1.16",
        "asyncio 1.16",
        "uvloop 1.16",
        "Invalid loop 'twisted'.",
        "",
    ]


def test_a_missing_uvloop_is_named(emulator: Emulator) -> None:
    output, _ = run_program(
        emulator,
        """
        import sys
        sys.modules["uvloop"] = None
        import dify_kb
        try:
            dify_kb.Client(loop="uvloop")
        except dify_kb.ConfigError as error:
            print(error)
        """,
    )

    assert output == "loop='uvloop' requires the package uvloop. pip install 'dify-kb[fast]'\n"


def test_an_async_client_runs_in_uvloop_and_can_require_it(emulator: Emulator) -> None:
    output, _ = run_program(
        emulator,
        """
        import asyncio, uvloop, dify_kb

        async def main(loop):
            async with dify_kb.AsyncClient(loop=loop) as client:
                return (await client.ping()).server_version

        print(uvloop.run(main(None)), uvloop.run(main("uvloop")), asyncio.run(main("asyncio")))
        for run, loop in ((asyncio.run, "uvloop"), (uvloop.run, "asyncio")):
            try:
                run(main(loop))
            except dify_kb.ConfigError as error:
                print(error.summary)
        """,
        "-W",
        "error",
    )

    assert output.split("\n") == [
        "1.16 1.16 1.16",
        "The running event loop is not uvloop's.",
        "The running event loop is not asyncio's.",
        "",
    ]


def test_trio_is_refused_by_name(emulator: Emulator) -> None:
    """anyio alone would run there, aiohttp does not."""
    output, errors = run_program(
        emulator,
        """
        import trio, dify_kb

        async def call():
            await dify_kb.AsyncClient().ping()

        async def enter():
            async with dify_kb.AsyncClient():
                pass

        for main in (call, enter):
            try:
                trio.run(main)
            except dify_kb.ConfigError as error:
                print(error)

        async def blocking():
            with dify_kb.Client() as client:
                print(client.ping().server_version)

        trio.run(blocking)
        """,
        "-W",
        "error",
    )

    assert output.count("requires asyncio, not trio. Call it in") == 2
    assert output.endswith("\n1.16\n")
    assert errors == ""


def test_a_second_event_loop_is_refused(emulator: Emulator) -> None:
    """Connections belong to the loop that opened them; a closed loop cannot even end them."""
    output, errors = run_program(
        emulator,
        """
        import asyncio, threading, dify_kb
        client = dify_kb.AsyncClient()

        async def call():
            try:
                print((await client.datasets.list()).total)
            except dify_kb.ConfigError as error:
                print(error.summary)

        async def close_in_thread():
            await call()
            await asyncio.to_thread(asyncio.run, close())

        async def close():
            try:
                await client.aclose()
            except dify_kb.ConfigError as error:
                print(error.summary)

        asyncio.run(close_in_thread())
        asyncio.run(call())
        asyncio.run(client.aclose())
        asyncio.run(client.aclose())
        asyncio.run(call())
        """,
    )

    assert output.split("\n") == [
        "0",
        "The client was opened in another event loop.",
        "The client was opened in another event loop.",
        "The client is closed.",
        "",
    ]
    assert errors == ""


def test_forked_children_of_a_used_client_live(emulator: Emulator) -> None:
    """With their own client; with that of the parent they are told why not."""
    output, errors = run_program(
        emulator,
        """
        import gc, multiprocessing, os, dify_kb
        client = dify_kb.Client()
        client.datasets.create("one")

        def work(number):
            try:
                client.ping()
            except dify_kb.ConfigError as error:
                told = "forked" in error.summary
            with dify_kb.Client() as own:
                return told, own.datasets.list().total

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(3)))
        child = os.fork()
        if child == 0:
            del client
            gc.collect()
            print(work.__name__, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), client.datasets.list().total)
        """,
        "-W",
        "ignore:This process:DeprecationWarning",  # of forks with threads, since Python 3.12
    )

    assert output == f"{[(True, 1)] * 3}\nwork\n0 1\n"
    assert errors == ""


def test_a_forked_child_of_an_async_client_is_told_why(emulator: Emulator) -> None:
    """It must not touch the connections of its parent either."""
    output, errors = run_program(
        emulator,
        """
        import asyncio, gc, os, dify_kb

        async def call(client):
            try:
                return (await client.datasets.list()).total
            except dify_kb.ConfigError as error:
                return error.summary

        async def main():
            global client
            client = dify_kb.AsyncClient()
            print(await call(client), flush=True)
            return os.fork()

        with asyncio.Runner() as runner:
            if child := runner.run(main()):
                os.waitpid(child, 0)
                print(runner.run(call(client)))
                runner.run(client.aclose())
            else:
                print(asyncio.run(call(client)), asyncio.run(client.aclose()), flush=True)
                del client
                gc.collect()
                os._exit(0)
        """,
        "-W",
        "error",
    )

    assert output == "0\nThe client was opened before the process was forked. None\n0\n"
    assert errors == ""


def test_an_abandoned_async_client_is_closed_with_one_warning(emulator: Emulator) -> None:
    """aiohttp would log an error about a session that the user has never seen."""
    output, errors = run_program(
        emulator,
        """
        import asyncio, gc, os, dify_kb

        def files():
            return len(os.listdir("/proc/self/fd"))

        async def use():
            client = dify_kb.AsyncClient()
            await client.datasets.list()

        async def main():
            before = files()
            await use()
            gc.collect()
            await asyncio.sleep(0.1)
            print(files() - before)

        asyncio.run(main())
        asyncio.run(use())
        asyncio.run(dify_kb.AsyncClient("emulator:").ping())
        """,
        "-W",
        "always",
    )

    assert output == "0\n"
    assert errors.count("ResourceWarning: A client of") == 3
    assert "Unclosed" not in errors
    assert "Traceback" not in errors


def test_an_exit_handler_gets_an_answer_or_the_reason(emulator: Emulator) -> None:
    """Names are resolved in a thread, which cannot be started any more.

    Of a client that is not used before, in a fork, and of one that is open.
    """
    output, errors = run_program(
        emulator,
        """
        import atexit, os, dify_kb
        client = dify_kb.Client(os.environ["DIFY_BASE_URL"].replace("127.0.0.1", "localhost"))
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            client.ping()

        @atexit.register
        def report():
            try:
                print(client.datasets.list().total)
            except dify_kb.ConfigError as error:
                print(error.summary)
        """,
        "-W",
        "error",
    )

    reason = "The client cannot be used while the interpreter exits."
    unused, is_open = output.splitlines()
    assert unused == reason
    assert is_open in {"0", reason}
    assert errors == ""


def test_ctrl_c_in_asyncio_run_closes_the_client(emulator: Emulator) -> None:
    emulator.faults.plan("datasets.list", ["stall 15"])
    program = """
import asyncio, signal, dify_kb
signal.signal(signal.SIGINT, signal.default_int_handler)
async def main():
    async with dify_kb.AsyncClient() as client:
        try:
            await client.datasets.list()
        finally:
            print("cancelled", flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    environment = {**os.environ, "DIFY_BASE_URL": emulator.url, "DIFY_API_KEY": emulator.api_key}
    with subprocess.Popen(  # noqa: S603 -- our own code
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            while emulator.faults.left():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()

    assert output == "cancelled\ninterrupted\n"
    assert errors == ""


NOTEBOOK_CELLS = [
    """
import asyncio, dify_kb
asyncio.get_running_loop()
client = dify_kb.Client()
dataset = client.datasets.create("docs", indexing_technique="economy")
report = client.load(dataset, [dify_kb.Item("a.md", text="text")])
print(report.added, client.datasets.list().total)
""",
    """
kb = dify_kb.AsyncClient()
print((await kb.datasets.list()).total)
""",
    """
print((await kb.datasets.list()).total)
await kb.aclose()
client.close()
""",
]


def test_both_clients_work_in_a_notebook(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells run inside of a running event loop, the same for all cells."""
    monkeypatch.setenv("DIFY_BASE_URL", emulator.url)
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)

    assert run_cells(NOTEBOOK_CELLS) == ["1 1\n", "1\n", "1\n"]


def test_a_load_shows_its_progress_in_a_notebook(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As text that is updated: widgets need an extension of the notebook."""
    monkeypatch.setenv("DIFY_BASE_URL", emulator.url)
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)
    cells = [
        f"""
import dify_kb
client = dify_kb.{client}()
dataset = {wait}client.datasets.create("{client}", indexing_technique="economy")
report = {wait}client.load(dataset, [dify_kb.Item("a.md", text="text")], progress=True)
{wait}client.{close}()
"""
        for client, wait, close in (("Client", "", "close"), ("AsyncClient", "await ", "aclose"))
    ]

    for shown in run_cells(cells):
        last = shown.rpartition("files · ")[2]
        assert "1/1 files · 100 %" in shown
        assert "upload" in last
        assert last.count("1/1") == 2


def run_cells(cells: list[str]) -> list[str]:
    """Run cells in a kernel; return the text that each printed and displayed."""
    manager, kernel = start_new_kernel(startup_timeout=TIMEOUT)
    try:
        printed: list[str] = []
        for cell in cells:
            printed.append("")

            def collect(message: dict[str, Any]) -> None:
                content = message["content"]
                assert message["msg_type"] != "error", content
                assert content.get("name") != "stderr", content
                printed[-1] += content.get("text", "")
                printed[-1] += content.get("data", {}).get("text/plain", "")

            kernel.execute_interactive(cell, timeout=TIMEOUT, output_hook=collect)
        return printed
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
