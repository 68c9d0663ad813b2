"""Compare the cost of this client with bare sockets, HTTP libraries and other Dify clients.

`python -m benchmarks client [--quick] [--only PART …] [--json FILE]` sends the same files by each
method to a null server in another process, in alternating rounds. Each method runs in a separate
process, after a warm-up; other packages run in virtual environments below `--venvs`. Figures are
medians with minimum and maximum, and ratios to the baselines of the same run; `server` is the part
of the time for which the server was busy: near 100 %, the server limits the wall time. Fails if a
bound is missed. Takes some 14 minutes, with `--quick` 3.

For CPU and wall time, content is in memory beforehand for methods that accept bytes; for memory,
all read the file during the upload. `load` records each file in its journal, follows its indexing,
and waits half a second until the first poll. Its concurrency is fixed, as that of the others; it is
measured with automatic concurrency as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import blocking_overhead
import polling_cost
import upload_clients
import virtual_environments
from comparison_sections import ON_TOP, SECTIONS
from comparison_tables import Bound, ComparisonTable, run_to_json
from machine_info import describe_run, format_title
from measurement_rounds import QUICK, Effort, open_workbench
from upload_clients import ACCEPTED, BY_BYTES, BY_PATH, FORM_DATA, HTTPX_ASYNC, JOINED, LOAD, OAPI2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LARGE_MEMORY, LARGE_LAG = 120.0, 25.0
"""Maximum peak memory in MiB, and event loop lag in ms, of a load of large files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and fail if a bound is missed."""
    options = parse_arguments(arguments)
    run_info = describe_run()
    print(format_title(run_info))
    effort = QUICK if options.quick else Effort()
    runner = upload_clients.MethodRunner(options.venvs)
    tables: dict[str, ComparisonTable] = {}
    with open_workbench(runner, effort, uvloop=options.uvloop) as workbench:
        for name in options.only or SECTIONS:
            for table in SECTIONS[name](workbench):
                tables[table.name] = table
                print(f"\n{table.text()}", flush=True)
    found = list(check_bounds(tables))
    print()
    for bound in found:
        print(bound.text())
    if options.json is not None:
        run_info["packages"] = list_packages(runner)
        run_info["options"] = {"quick": options.quick, "uvloop": options.uvloop}
        run = {**run_info, **run_to_json(tables, found)}
        options.json.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(bound.is_held or bound.is_aim for bound in found) else 1


def check_bounds(tables: Mapping[str, ComparisonTable]) -> Iterator[Bound]:
    """Check the bounds of the measured tables."""
    for at_once in (8, 32):
        if cpu := tables.get(f"cpu {at_once}"):
            yield from check_upload_bounds(cpu, at_once)
    if memory := tables.get("memory 14 MB"):
        yield from check_large_file_bounds(memory, tables["lag 14 MB"])
    if calls := tables.get("blocking"):
        extra = sorted(calls[ON_TOP].values)
        found = extra[len(extra) // 2]
        yield Bound(
            description="overhead of a blocking call, ms",
            limit=blocking_overhead.MAX_OVERHEAD_MS,
            measured=found,
        )
    for number in polling_cost.DOCUMENT_COUNTS:
        if seen := tables.get(f"watching {number}"):
            few = 0.25 if number < 1000 else 0.1
            gets = seen["load"].values[0]
            yield Bound(
                description=f"GET requests per document, {number:,} documents",
                limit=few,
                measured=gets,
            )


def check_upload_bounds(cpu: ComparisonTable, at_once: int) -> Iterator[Bound]:
    """Check the bounds of the CPU time of uploads."""
    where = f"CPU time relative to {{}}, {at_once} in flight"
    for method, most in ((BY_PATH, 1.0), (BY_BYTES, 1.0), (LOAD, 1.5), (ACCEPTED, 1.5)):
        ratio = cpu.ratio(method, FORM_DATA)
        yield Bound(description=f"{method}: {where.format(FORM_DATA)}", limit=most, measured=ratio)
    joined = cpu.ratio(BY_PATH, JOINED)
    yield Bound(
        description=f"{BY_PATH}: {where.format(JOINED)}", limit=1.3, measured=joined, is_aim=True
    )
    if at_once == 32:
        for method in (HTTPX_ASYNC, OAPI2):
            dearer = cpu.ratio(method, BY_PATH)
            yield Bound(
                description=f"{method}: {where.format(BY_PATH)}",
                limit=10.0,
                measured=dearer,
                is_minimum=True,
            )


def check_large_file_bounds(memory: ComparisonTable, lag: ComparisonTable) -> Iterator[Bound]:
    """Check the bounds of a load of large files, by its worst round."""
    for what, table, most in (
        ("peak memory, MiB", memory, LARGE_MEMORY),
        ("event loop lag, p99, ms", lag, LARGE_LAG),
    ):
        found = max(table[LOAD].values, default=None)
        yield Bound(description=f"load of 14 MB files: {what}", limit=most, measured=found)


def list_packages(runner: upload_clients.MethodRunner) -> Mapping[str, Sequence[str]]:
    """Return the packages of each environment used."""
    return {
        needs[0]: [environment.problem] if environment.problem else list(environment.packages)
        for needs, environment in runner.environments.items()
        if needs
    }


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks client", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="Measure less, in some 3 minutes.")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="Measure these parts.")
    parser.add_argument("--uvloop", action="store_true", help="Run async methods on uvloop.")
    parser.add_argument("--json", type=Path, help="Also write the run to this file, as JSON.")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=virtual_environments.DEFAULT_FOLDER,
        help="Folder of the virtual environments.",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
