"""Run a benchmark by name: `python -m benchmarks NAME …`, in the root of the repository.

The server is that of `DIFY_BASE_URL` or `--url`; by default, an embedded server in another process
with the capacity of a default installation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import client_comparison
import scaling
from emulator_process import run_emulator

from dify_kb.cli import run
from dify_kb.emulator import Settings

PACKAGE_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "instance": ("bench",),
    "compare": ("bench", "compare"),
    "retrieval-quality": ("eval",),
}
"""Benchmarks that are commands of the package, and these commands."""

Run = Callable[[Sequence[str]], int]
"""Runs a benchmark with its arguments; returns an exit code."""


def package_command(command: tuple[str, ...]) -> Run:
    """Return a function that runs a command of the package."""

    def call(arguments: Sequence[str]) -> int:
        with ExitStack() as stack:
            if not _named(arguments):
                server = stack.enter_context(run_emulator(Settings.default_pod()))
                os.environ["DIFY_BASE_URL"], os.environ["DIFY_API_KEY"] = server.url, server.key
            return run([*command, *arguments])

    return call


BENCHMARKS: Mapping[str, Run] = {
    **{name: package_command(command) for name, command in PACKAGE_COMMANDS.items()},
    "client": client_comparison.main,
    "scale": scaling.main,
}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark named by the first argument."""
    name, *rest = arguments or [""]
    if name not in BENCHMARKS:
        sys.stderr.write(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}} …\n")
        return 2
    return BENCHMARKS[name](rest)


def _named(arguments: Sequence[str]) -> bool:
    given = any(word.partition("=")[0] == "--url" for word in arguments)
    return given or bool(os.environ.get("DIFY_BASE_URL")) or "--help" in arguments


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
