"""Measure how the cost per document grows with the number of documents.

`python -m benchmarks scale [--sizes N …] [--json FILE]` loads 1,000, 10,000 and 100,000 files of 64
bytes into an embedded server in another process, follows their indexing, loads the same files
again, and lists all documents; each step in a separate process, start-up not counted. Prints CPU
time and requests per document and the peak memory, with the ratio to a plain loop of aiohttp's
`FormData` that sends some of the files to the same server. Fails if a bound is missed. 100,000
files take some 6 minutes; only the smallest size is measured more than once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import many_files
import virtual_environments
from comparison_tables import Bound, ComparisonTable, run_to_json
from emulator_process import EmulatorProcess, run_emulator
from machine_info import describe_run, format_title
from measurement_rounds import build_figure, build_table, show_status
from upload_clients import FORM_DATA, MethodRunner, UploadMethod

from dify_kb import AsyncClient
from dify_kb.emulator import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SIZES = (1000, 10_000, 100_000)
ROUNDS = 3
AT_ONCE = 8
FLOOR = UploadMethod(FORM_DATA, "aiohttp", "form_data")
LOAD, LOAD_AGAIN, LIST = (
    UploadMethod("load", "dify_kb_scaling", "load"),
    UploadMethod("load again", "dify_kb_scaling", "load"),
    UploadMethod("list", "dify_kb_scaling", "list"),
)
FLOOR_FILES = 500
LONGEST = 3600.0

GROWTH = 1.5
"""Maximum CPU time per document of the largest load, as a multiple of the smallest."""

MAX_REQUESTS = 1.1
"""Maximum of requests per document, those to follow its indexing included."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and fail if a bound is missed."""
    options = parse_arguments(arguments)
    run_info = describe_run()
    print(format_title(run_info))
    runner = MethodRunner(virtual_environments.DEFAULT_FOLDER, LONGEST)
    tables: dict[str, ComparisonTable] = {}
    for size in sorted(options.sizes):
        rounds = ROUNDS if size <= SIZES[0] else 1
        for each in measure_size(runner, size, rounds):
            tables[each.name] = each
            print(f"\n{each.text()}", flush=True)
    found = list(check_bounds(tables, sorted(options.sizes)))
    print()
    for bound in found:
        print(bound.text())
    if options.json is not None:
        run = {**run_info, **run_to_json(tables, found)}
        options.json.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(bound.is_held for bound in found) else 1


def measure_size(runner: MethodRunner, size: int, rounds: int) -> Iterator[ComparisonTable]:
    """Measure one size."""
    found: dict[str, list[Mapping[str, Any]]] = {
        method.label: [] for method in (FLOOR, LOAD, LOAD_AGAIN, LIST)
    }
    for index in range(rounds):
        with (
            tempfile.TemporaryDirectory() as temporary,
            run_emulator(Settings(history_size=100)) as server,
        ):
            show_status(f"{size:,} documents, round {index + 1} of {rounds}")
            for label, result in run_once(runner, size, Path(temporary), server).items():
                found[label].append(result)
    show_status("")
    where = f"{size:,} documents"
    yield build_table(
        f"cpu {size}", f"CPU time per document, {where}", "us", (FORM_DATA,), found,
        lambda result: result["cpu"] / result["uploads"] * 1e6,
    )  # fmt: skip
    yield build_table(
        f"memory {size}", f"peak resident memory, {where}", "MiB", (FORM_DATA,), found,
        lambda result: result["resident"] / 2**20,
    )  # fmt: skip
    yield ComparisonTable(
        name=f"requests {size}",
        title=f"requests, {where}",
        unit="requests",
        floors=(),
        figures=[
            build_figure(method.label, found[method.label], lambda result: result["requests"])
            for method in (LOAD, LOAD_AGAIN, LIST)
        ],
    )


def run_once(
    runner: MethodRunner, size: int, folder: Path, server: EmulatorProcess
) -> Mapping[str, Mapping[str, Any]]:
    """Run all steps once, with an empty dataset at first."""
    files, few, journal = folder / "files", folder / "few", folder / "journal.db"
    many_files.create_files(files, size)
    many_files.create_files(few, FLOOR_FILES)
    plain, grown = anyio.run(create_datasets, server)
    job = {"url": server.url, "key": server.key, "at_once": AT_ONCE, "warm_up": str(few / "0000")}
    load = {**job, "dataset": grown, "folder": str(files), "journal": str(journal)}
    return {
        FORM_DATA: runner.send(
            FLOOR, {**job, "dataset": plain, "folder": str(few / "0000"), "held": True}
        ),
        LOAD.label: runner.send(LOAD, load),
        LOAD_AGAIN.label: runner.send(LOAD_AGAIN, load),
        LIST.label: runner.send(LIST, load),
    }


async def create_datasets(server: EmulatorProcess) -> tuple[str, str]:
    """Create a dataset for the baseline, and one for the loads."""
    async with AsyncClient(server.url, server.key) as client:
        plain = await client.datasets.create("plain", indexing_technique="economy")
        grown = await client.datasets.create("grown", indexing_technique="economy")
        return plain.id, grown.id


def check_bounds(tables: Mapping[str, ComparisonTable], sizes: Sequence[int]) -> Iterator[Bound]:
    """Check the bounds of the measured tables."""
    for size in sizes:
        memory = max(tables[f"memory {size}"][LOAD.label].values, default=None)
        yield Bound(
            description=f"peak memory, MiB, {size:,} documents",
            limit=many_files.MAX_RESIDENT_BYTES / 2**20,
            measured=memory,
        )
        requests = max(tables[f"requests {size}"][LOAD.label].values, default=None)
        each = requests and requests / size
        yield Bound(
            description=f"requests per document, {size:,} documents",
            limit=MAX_REQUESTS,
            measured=each,
        )
    first, last = (tables[f"cpu {size}"][LOAD.label].values for size in (sizes[0], sizes[-1]))
    growth = (
        sorted(last)[len(last) // 2] / sorted(first)[len(first) // 2] if first and last else None
    )
    yield Bound(
        description=f"CPU time per document, {sizes[-1]:,} relative to {sizes[0]:,}",
        limit=GROWTH,
        measured=growth,
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N")
    parser.add_argument("--json", type=Path, help="Also write the run to this file, as JSON.")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
