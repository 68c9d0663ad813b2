"""Run `dify-kb` and Python scripts in forks of one process, which has imported the package already.

A start takes most of a second, nearly all of it imports. The programs of this module pass their
arguments, environment and standard streams to this process. Warnings are errors in it.
"""

from __future__ import annotations

import gc
import io
import json
import os
import pkgutil
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path

import dify_kb
from dify_kb.bench.benchmark_plan import BenchmarkPlan
from dify_kb.cli import run

CLIENT = """#!{python} -ISE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
call = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
sent = socket.send_fds(server, [call], [0, 1, 2])
server.sendall(call[sent:])
server.shutdown(socket.SHUT_WR)
code = server.recv(8) or 255
server.recv(1)  # until the end of the process
sys.exit(int(code))
"""


@contextmanager
def command_server(*, tiny_benchmarks: bool) -> Iterator[Path]:
    """Start a server; return the folder with its programs: `dify-kb` and `run-script FILE`."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        for name in ("dify-kb", "run-script"):
            program = Path(folder) / name
            program.write_text(CLIENT.format(python=sys.executable, address=address))
            program.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            process = subprocess.Popen(  # noqa: S603 -- this file
                [sys.executable, "-Werror", __file__, str(listener.fileno()), str(tiny_benchmarks)],
                pass_fds=[listener.fileno()],
            )
        try:
            yield Path(folder)
        finally:
            process.kill()
            process.wait()


def _serve(listener: socket.socket) -> None:
    children: set[int] = set()
    while True:
        connection, _ = listener.accept()
        children = {child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)}
        if (child := os.fork()) == 0:
            listener.close()
            code = _run_call(connection)
            connection.sendall(str(code).encode())
            connection.detach()  # the end of the process closes it
            sys.exit(code)
        children.add(child)
        connection.close()


def _run_call(connection: socket.socket) -> int:
    """Run a program in this process; return its exit code."""
    call, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while more := connection.recv(1 << 16):
        call += more
    (program, *arguments), folder, environment = json.loads(call)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 -- as of the interpreter
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if Path(program).name == "dify-kb":
        return run(arguments)
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


def _replace_benchmark_plan() -> None:
    """Make benchmarks end by their number of requests, within a second or two."""
    tiny = runpy.run_path(str(Path(__file__).parent / "bench/tiny_plan.py"))["TINY"]
    BenchmarkPlan.quick = classmethod(lambda _: tiny)  # type: ignore[method-assign,assignment]


def main(arguments: Sequence[str]) -> None:
    """Serve at the socket of a file descriptor."""
    descriptor, tiny_benchmarks = arguments
    if tiny_benchmarks == "True":
        _replace_benchmark_plan()
    _serve(socket.socket(fileno=int(descriptor)))


if __name__ == "__main__":
    for found in pkgutil.walk_packages(dify_kb.__path__, "dify_kb."):
        if found.name not in {"dify_kb.__main__", "dify_kb.testing"}:
            import_module(found.name)
    with redirect_stdout(io.StringIO()):
        run(["guide"])  # which imports what typer needs for a command
    gc.freeze()
    main(sys.argv[1:])
