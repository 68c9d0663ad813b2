"""Tests in virtual time: rounds of any length end immediately, on any machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from types import SimpleNamespace
from unittest import mock

from virtual_time import run

from dify_kb.bench import load_generator
from dify_kb.transport.clock import loop_time


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run an async test in virtual time, which the load generator's stopwatch follows."""

    @wraps(test)
    def run_test() -> None:
        stopwatch = SimpleNamespace(perf_counter=loop_time)
        with mock.patch.object(load_generator, "time", stopwatch):
            run(test)

    return run_test
