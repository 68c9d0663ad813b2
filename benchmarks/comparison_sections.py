"""The sections of the client comparison, each with its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import blocking_overhead
import import_time
import null_server
import polling_cost
from comparison_tables import BenchmarkFigure, ComparisonTable
from measurement_rounds import MethodResult, Workbench, build_table, show_status
from upload_clients import (
    DECODERS,
    FLOOR,
    FORM_DATA,
    IMPORTS,
    JSON_LOADS,
    PACED,
    UPLOAD_METHODS,
    process_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SMALL, LARGE = 4096, 14_000_000
WARM_UP = 200
MAX_SECONDS = 5.0
"""Seconds after which no new files are started, in wall time measurements."""


def measure_processor_time(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure the CPU time of an upload of 4 KiB."""
    for at_once in (8, 32):
        with null_server.run_in_process() as url:
            job = {
                "url": url,
                "folder": bench.create_files(bench.effort.files, SMALL),
                "warm_up": bench.create_files(WARM_UP, SMALL),
                "at_once": at_once,
                "seconds": bench.effort.seconds,
                "held": True,
            }
            results = bench.run_rounds(bench.effort.rounds, f"CPU time, {at_once} in flight", job)
        yield build_table(
            f"cpu {at_once}",
            f"CPU time per upload of 4 KiB, {at_once} in flight",
            "us",
            (FLOOR, FORM_DATA),
            results,
            lambda result: result["cpu"] / result["uploads"] * 1e6,
        )


def measure_wall_time(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure the wall time per upload of 4 KiB, on servers with a latency."""
    for latency in bench.effort.latencies:
        with null_server.run_in_process(latency) as url:
            job = {
                "url": url,
                "folder": bench.create_files(bench.effort.waiting, SMALL),
                "warm_up": bench.create_files(32, SMALL),
                "at_once": 32,
                "seconds": MAX_SECONDS,
                "held": True,
            }
            what = f"wall time at {latency} s"
            results = bench.run_rounds(bench.effort.repeats, what, job, [*UPLOAD_METHODS, PACED])
        yield build_table(
            f"wall {latency * 1000:.0f}",
            f"wall time per upload of 4 KiB, 32 in flight, {latency * 1000:.0f} ms latency",
            "ms",
            (FLOOR, FORM_DATA),
            results,
            lambda result: result["wall"] / result["uploads"] * 1e3,
        )


def measure_memory(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure the memory and the event loop lag of many small and some large files."""
    cases = ((bench.effort.many, SMALL, "4 KiB"), (bench.effort.large, LARGE, "14 MB"))
    for number, size, words in cases:
        with null_server.run_in_process() as url:
            job = {
                "url": url,
                "folder": bench.create_files(number, size),
                "warm_up": bench.create_files(32, SMALL),
                "at_once": 32,
                "lag": True,
            }
            what = f"{number:,} files of {words}, 32 in flight"
            results = bench.run_rounds(bench.effort.repeats, f"memory, {what}", job)
        yield build_table(
            f"memory {words}",
            f"peak resident memory: {what}",
            "MiB",
            (FLOOR, FORM_DATA),
            results,
            lambda result: result["resident"] / 2**20,
        )
        yield build_table(
            f"lag {words}",
            f"event loop lag, p99: {what}",
            "ms",
            (FORM_DATA,),
            results,
            lambda result: lag_percentile(result["lags"]),
        )


def lag_percentile(lags: Sequence[float]) -> float | None:
    """Return the 99th percentile in ms, or None without measurements."""
    return max(0.0, sorted(lags)[int(0.99 * (len(lags) - 1))]) * 1e3 if lags else None


def measure_start_up(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure import times, interpreter start included."""
    show_status("start-up")
    commands: dict[str, Sequence[str]] = {}
    problems: dict[str, str] = {}
    for label, (statement, needs) in IMPORTS.items():
        environment = bench.runner.environment(needs)
        if environment.problem is None:
            commands[label] = [environment.python, "-c", statement]
        else:
            problems[label] = environment.problem
    times = import_time.time_commands(
        commands, 3 * bench.effort.repeats, process_environment(own=True)
    )
    yield ComparisonTable(
        name="start-up",
        title="import, CPU time, interpreter start included",
        unit="ms",
        floors=(import_time.FLOOR,),
        figures=[
            BenchmarkFigure(
                method=label,
                values=[seconds * 1e3 for seconds in times.get(label, ())],
                problem=problems.get(label),
            )
            for label in IMPORTS
        ],
    )


def measure_blocking_calls(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure the overhead of a blocking call over the async one."""
    show_status("blocking calls")
    times = blocking_overhead.time_calls(3 * bench.effort.repeats)
    yield ComparisonTable(
        name="blocking",
        title="time per call, one after the other",
        unit="ms",
        floors=(blocking_overhead.ASYNC_PING,),
        figures=[
            *(BenchmarkFigure(method=name, values=results) for name, results in times.items()),
            BenchmarkFigure(method=ON_TOP, values=blocking_overhead.overheads(times)),
        ],
    )


ON_TOP = "blocking on top of async"
PAGES, POLLED = "each seen once, by pages", "asked for one by one"


def measure_polling(bench: Workbench) -> Iterator[ComparisonTable]:
    """Count the GET requests to follow the indexing, in virtual time."""
    del bench
    for number in polling_cost.DOCUMENT_COUNTS:
        show_status(f"polling {number} documents")
        row = polling_cost.measure_following((number, 1, 2.0))
        yield ComparisonTable(
            name=f"watching {number}",
            title=f"GET requests per document until indexed: {number:,} documents, 2 s each",
            unit="GETs",
            floors=(PAGES,),
            figures=[
                BenchmarkFigure(method=PAGES, values=[0.01]),
                BenchmarkFigure(method="load", values=[row.gets]),
                BenchmarkFigure(method=POLLED, values=[row.polled]),
            ],
        )


def measure_decoding(bench: Workbench) -> Iterator[ComparisonTable]:
    """Measure the CPU time to decode a page of a document list."""
    body = null_server.list_documents(null_server.DATASET_ID, 100, {"limit": "100"}).partition(
        b"\r\n\r\n"
    )[2]
    file = bench.folder / "page.json"
    file.write_bytes(body)
    results: dict[str, list[MethodResult]] = {method.label: [] for method in DECODERS}
    for index in range(bench.effort.repeats):
        for method in DECODERS:
            show_status(f"decoding, round {index + 1}: {method.label}")
            results[method.label].append(bench.runner.decode(method, file))
    yield build_table(
        "decoding",
        "CPU time to decode one document, in a page of 100",
        "us",
        (JSON_LOADS,),
        results,
        lambda result: result["seconds"] / 100 * 1e6,
    )


SECTIONS: Mapping[str, Callable[[Workbench], Iterator[ComparisonTable]]] = {
    "cpu": measure_processor_time,
    "wall": measure_wall_time,
    "memory": measure_memory,
    "start-up": measure_start_up,
    "blocking": measure_blocking_calls,
    "polling": measure_polling,
    "decoding": measure_decoding,
}
