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
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

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
_, code = server.makefile().read().split()
sys.exit(int(code) % 256)
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


class ForkedProgram:
    """A program in a fork of the server, with the methods of `subprocess.Popen` that tests use.

    Args:
        programs: the folder of the server.
        arguments: of `dify-kb`.
        stdin: descriptor of the standard input; None creates a pipe.
        without: names of packages that are not installed for the program.
    """

    def __init__(
        self,
        programs: Path,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int | None = None,
        without: Sequence[str] = (),
    ) -> None:
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(f"{programs}/socket")
        call = [["dify-kb", *arguments], str(cwd), dict(env), without]
        theirs_in, ours_in = (stdin, None) if stdin is not None else os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        message = json.dumps(call).encode()
        sent = socket.send_fds(self._server, [message], [theirs_in, theirs_out, theirs_err])
        self._server.sendall(message[sent:])
        self._server.shutdown(socket.SHUT_WR)
        for descriptor in (theirs_out, theirs_err, *([] if ours_in is None else [theirs_in])):
            os.close(descriptor)
        self.stdin: IO[str] | None = None if ours_in is None else os.fdopen(ours_in, "w")
        self.stdout: IO[str] | None = os.fdopen(ours_out)
        self.stderr: IO[str] | None = os.fdopen(ours_err)
        self._answer = self._server.makefile()
        self.pid = int(self._answer.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, which is negative after a signal."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("dify-kb", timeout or 0)
            self.returncode = int(self._answer.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the program if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the program if it runs."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close the standard input and wait for the end; return the rest of the output."""
        if self.stdin is not None:
            with suppress(BrokenPipeError):
                self.stdin.close()
        with ThreadPoolExecutor() as pool:
            output = pool.submit(_read_rest, self.stdout)
            errors = pool.submit(_read_rest, self.stderr)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return output.result(), errors.result()

    def close(self) -> None:
        """Kill the program, and close all files."""
        self.kill()
        self.wait()
        for file in (self.stdin, self.stdout, self.stderr, self._answer, self._server):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()


def _read_rest(file: IO[str] | None) -> str:
    return "" if file is None or file.closed else file.read()


def _serve(listener: socket.socket) -> None:
    children: set[int] = set()
    while True:
        connection, _ = listener.accept()
        children = {child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)}
        if (child := os.fork()) == 0:
            listener.close()
            _run_call(connection)
        children.add(child)
        connection.close()


def _run_call(connection: socket.socket) -> NoReturn:
    """Run a program in a fork; send its process id and, at its end, its exit code."""
    call, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while more := connection.recv(1 << 16):
        call += more
    (program, *arguments), folder, environment, *rest = json.loads(call)
    if (child := os.fork()) == 0:
        connection.detach()  # the end of the process closes it
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.modules.update(dict.fromkeys(rest[0] if rest else ()))
        sys.exit(_run_program(program, arguments))
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    with suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run_program(program: str, arguments: Sequence[str]) -> int:
    """Run a program with streams like those of the interpreter; return its exit code."""
    is_unbuffered = "PYTHONUNBUFFERED" in os.environ
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stdout.reconfigure(write_through=is_unbuffered)
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
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
