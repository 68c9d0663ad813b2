"""The parts of a comparison of clients, each a question with its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import blocking
import imports
import null_server
import watching
from figures import Figure, Table
from rounds import Bench, Told, note, table
from ways import DECODERS, FLOOR, FORM_DATA, IMPORTS, JSON, PACED, WAYS, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SMALL, LARGE = 4096, 14_000_000
WARM_UP = 200
PATIENCE = 5.0
"""Seconds after which no more files are begun where wall time is measured."""


def processor(bench: Bench) -> Iterator[Table]:
    """What an upload of 4 KiB costs."""
    for at_once in (8, 32):
        with null_server.running() as url:
            job = {
                "url": url,
                "folder": bench.files(bench.effort.files, SMALL),
                "warm_up": bench.files(WARM_UP, SMALL),
                "at_once": at_once,
                "seconds": bench.effort.seconds,
                "held": True,
            }
            found = bench.rounds(bench.effort.rounds, f"processor time, {at_once} in flight", job)
        yield table(
            f"cpu {at_once}",
            f"processor time of an upload of 4 KiB, {at_once} in flight",
            "us",
            (FLOOR, FORM_DATA),
            found,
            lambda told: told["cpu"] / told["uploads"] * 1e6,
        )


def wall(bench: Bench) -> Iterator[Table]:
    """How long uploads of 4 KiB take, on servers that take their time."""
    for latency in bench.effort.latencies:
        with null_server.running(latency) as url:
            job = {
                "url": url,
                "folder": bench.files(bench.effort.waiting, SMALL),
                "warm_up": bench.files(32, SMALL),
                "at_once": 32,
                "seconds": PATIENCE,
                "held": True,
            }
            what = f"wall time at {latency} s"
            found = bench.rounds(bench.effort.repeats, what, job, [*WAYS, PACED])
        yield table(
            f"wall {latency * 1000:.0f}",
            f"wall time per upload of 4 KiB, 32 in flight, {latency * 1000:.0f} ms latency",
            "ms",
            (FLOOR, FORM_DATA),
            found,
            lambda told: told["wall"] / told["uploads"] * 1e3,
        )


def memory(bench: Bench) -> Iterator[Table]:
    """How much memory many small and some large files take, and how late the event loop gets."""
    cases = ((bench.effort.many, SMALL, "4 KiB"), (bench.effort.large, LARGE, "14 MB"))
    for number, size, words in cases:
        with null_server.running() as url:
            job = {
                "url": url,
                "folder": bench.files(number, size),
                "warm_up": bench.files(32, SMALL),
                "at_once": 32,
                "lag": True,
            }
            what = f"{number:,} files of {words}, 32 in flight"
            found = bench.rounds(bench.effort.repeats, f"memory, {what}", job)
        yield table(
            f"memory {words}",
            f"memory resident at most: {what}",
            "MiB",
            (FLOOR, FORM_DATA),
            found,
            lambda told: told["resident"] / 2**20,
        )
        yield table(
            f"lag {words}",
            f"how late the event loop runs a task, 99 of 100: {what}",
            "ms",
            (FORM_DATA,),
            found,
            lambda told: late(told["lags"]),
        )


def late(lags: Sequence[float]) -> float | None:
    """Give the 99th percentile in ms; None without an event loop."""
    return max(0.0, sorted(lags)[int(0.99 * (len(lags) - 1))]) * 1e3 if lags else None


def start_up(bench: Bench) -> Iterator[Table]:
    """What importing costs, the interpreter's start included."""
    note("start-up")
    commands: dict[str, Sequence[str]] = {}
    problems: dict[str, str] = {}
    for label, (statement, needs) in IMPORTS.items():
        made = bench.runner.environment(needs)
        if made.problem is None:
            commands[label] = [made.python, "-c", statement]
        else:
            problems[label] = made.problem
    times = imports.measured(commands, 3 * bench.effort.repeats, surroundings(own=True))
    yield Table(
        name="start-up",
        title="start-up, with the interpreter's own",
        unit="ms",
        floors=(imports.FLOOR,),
        figures=[
            Figure(
                way=label,
                values=[seconds * 1e3 for seconds in times.get(label, ())],
                problem=problems.get(label),
            )
            for label in IMPORTS
        ],
    )


def calls(bench: Bench) -> Iterator[Table]:
    """What a blocking call costs over its async twin."""
    note("blocking calls")
    times = blocking.measured(3 * bench.effort.repeats)
    yield Table(
        name="blocking",
        title="a call, one after another",
        unit="ms",
        floors=(blocking.AWAITED,),
        figures=[
            *(Figure(way=name, values=found) for name, found in times.items()),
            Figure(way=ON_TOP, values=blocking.on_top(times)),
        ],
    )


ON_TOP = "blocking on top of async"
PAGES, POLLED = "each seen once, by pages", "asked for one by one"


def followed(bench: Bench) -> Iterator[Table]:
    """How many GETs it takes to see a document indexed, in virtual time: the same in every run."""
    del bench
    for number in watching.NUMBERS:
        note(f"watching {number} documents")
        row = watching.followed((number, 1, 2.0))
        yield Table(
            name=f"watching {number}",
            title=f"GETs per document until it is indexed: {number:,} documents, 2 s each",
            unit="GETs",
            floors=(PAGES,),
            figures=[
                Figure(way=PAGES, values=[0.01]),
                Figure(way="load", values=[row.gets]),
                Figure(way=POLLED, values=[row.polled]),
            ],
        )


def decoding(bench: Bench) -> Iterator[Table]:
    """What it costs to turn a page of the list into documents."""
    body = null_server.page(null_server.ID, 100, {"limit": "100"}).partition(b"\r\n\r\n")[2]
    file = bench.folder / "page.json"
    file.write_bytes(body)
    found: dict[str, list[Told]] = {way.label: [] for way in DECODERS}
    for index in range(bench.effort.repeats):
        for way in DECODERS:
            note(f"decoding, round {index + 1}: {way.label}")
            found[way.label].append(bench.runner.decode(way, file))
    yield table(
        "decoding",
        "processor time to decode a document, of a page of 100",
        "us",
        (JSON,),
        found,
        lambda told: told["seconds"] / 100 * 1e6,
    )


SECTIONS: Mapping[str, Callable[[Bench], Iterator[Table]]] = {
    "cpu": processor,
    "wall": wall,
    "memory": memory,
    "start-up": start_up,
    "blocking": calls,
    "watching": followed,
    "decoding": decoding,
}
