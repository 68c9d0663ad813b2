"""Render the measured numbers into README.md and the guide `dify_kb/guides/numbers.md`.

`python benchmarks/readme_numbers.py` writes both files, between the two markers in each, from the
runs `client.json` and `scale.json` in `benchmarks/results/`. A test renders them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison_tables import format_value
from upload_clients import ACCEPTED, FLOOR, FORM_DATA, OWN_PACE

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).with_name("results")
README = ROOT / "README.md"
GUIDE = ROOT / "dify_kb" / "guides" / "numbers.md"
BEGIN = "<!-- Written by benchmarks/readme_numbers.py; do not edit. -->"
END = "<!-- End of the written part. -->"
TIMES = "\N{MULTIPLICATION SIGN}"

Run = Mapping[str, Any]

README_ROWS: Sequence[str] = (
    "load",
    "create_by_file(path)",
    FORM_DATA,
    FLOOR,
    "httpx, async",
    "dify-dataset-sdk, threads",
    "dify-oapi2, async",
    "dify-python-sdk, threads",
)

COLUMNS = ("cpu 32", "wall 50", "memory 4 KiB", "memory 14 MB", "lag 14 MB")
UNITS = (" µs", " ms", " MiB", " MiB", " ms")
HEADS = (
    "CPU time per upload",
    f"{TIMES} {FLOOR}",
    f"{TIMES} {FORM_DATA}",
    "wall time per upload at 50 ms latency",
    "memory, 5,000 files of 4 KiB",
    "memory, 32 files of 14 MB",
    "event loop lag (p99), 32 files of 14 MB",
)


def render_readme_table(client: Run) -> str:
    """Render the short comparison for the README."""
    cpu, memory = (client["tables"][name]["figures"] for name in ("cpu 32", "memory 4 KiB"))
    heads = ("4 KiB, 32 in flight", HEADS[0], HEADS[2], "memory, 5,000 files")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method in README_ROWS:
        cells = (
            method,
            format_median(cpu[method], " µs"),
            f"{cpu[method]['ratios'][FORM_DATA]['median']:.2f}",
            format_median(memory[method], " MiB"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        describe_machine(client) + "; results in [`benchmarks/results/`](benchmarks/results/).",
    ]
    return "\n".join(lines)


def render_numbers(client: Run, scale: Run) -> str:
    """Render all numbers of the two runs for the guide."""
    return "\n".join(
        [
            "## Upload clients",
            "",
            f"aiohttp {client['versions']['aiohttp']}, {describe_machine(client)}.",
            "4 KiB per file and 32 uploads in flight unless stated otherwise.",
            "Medians of several rounds, with the lowest and the highest value.",
            "Each client runs in a separate process.",
            "The server runs in another process and only sends fixed responses.",
            "",
            *render_comparison(client),
            "",
            "## Other figures",
            "",
            *render_other_figures(client),
            "",
            "## Growth with the number of documents",
            "",
            *render_growth(scale),
            "",
            "## Bounds",
            "",
            *render_missed_bounds([*client["bounds"], *scale["bounds"]]),
        ]
    )


def describe_machine(run: Run) -> str:
    """Return the Python version, the machine and the date of a run."""
    machine = run["machine"]
    return (
        f"Python {run['python']}, {machine['cpus']} CPUs ({machine['processor']}), {run['at'][:10]}"
    )


def render_comparison(run: Run) -> Iterator[str]:
    """Render a table with one row per upload method."""
    yield f"| | {' | '.join(HEADS)} |"
    yield "|---" * (len(HEADS) + 1) + "|"
    tables = run["tables"]
    failures: list[str] = []
    for method, cpu in tables["cpu 32"]["figures"].items():
        if "problem" in cpu:
            failures.append(f"{method} ({cpu['problem']})")
            continue
        cells = [
            format_median(tables[column]["figures"].get(method), unit)
            for column, unit in zip(COLUMNS, UNITS, strict=True)
        ]
        ratios = [f"{cpu['ratios'][floor]['median']:.2f}" for floor in (FLOOR, FORM_DATA)]
        spread = f" ({format_value(cpu['low'])} to {format_value(cpu['high'])})"
        yield f"| {method} | {' | '.join([cells[0] + spread, *ratios, *cells[1:]])} |"
    if failures:
        yield ""
        yield f"Failed, not measured: {'; '.join(failures)}."


def render_other_figures(run: Run) -> Iterator[str]:
    """Render a list of the figures other than uploads."""
    tables = run["tables"]
    start, calls = (tables[name]["figures"] for name in ("start-up", "blocking"))
    decoding = tables["decoding"]["figures"]
    ours = start["from dify_kb import AsyncClient"]
    yield (
        f"* Start-up time: `from dify_kb import AsyncClient` {format_median(ours, ' ms')},"
        f" {ours['ratios']['import aiohttp']['median']:.2f} {TIMES} `import aiohttp`."
    )
    yield (
        f"* Blocking client: {format_median(calls['blocking on top of async'], ' ms')} per call"
        f" on top of the {format_median(calls['ping, async'], ' ms')} of the async client."
    )
    polls = ", ".join(
        f"{format_value(tables[f'watching {number}']['figures']['load']['median'])} with"
        f" {number:,} documents"
        for number in (100, 1000, 10_000)
    )
    yield f"* GET requests per document to follow its indexing: {polls}."
    for latency in (50, 200):
        methods = tables[f"wall {latency}"]["figures"]
        yield (
            f"* Automatic concurrency, first 5 s at {latency} ms latency:"
            f" {format_median(methods[OWN_PACE], ' ms')} per file; with `concurrency=32`:"
            f" {format_median(methods[ACCEPTED], ' ms')}."
        )
    names = ", ".join(
        f"{method} {format_median(figure, ' µs')}" for method, figure in decoding.items()
    )
    yield f"* CPU time to decode one document of a list page: {names}."


def render_growth(run: Run) -> Iterator[str]:
    """Render a table with one row per number of documents."""
    tables = run["tables"]
    yield "Loads into the embedded server. CPU time and requests are per document."
    yield ""
    yield (
        f"| documents | CPU time | {TIMES} {FORM_DATA} | requests | memory |"
        " CPU time of a second load | requests of a second load, in total | CPU time to list |"
    )
    yield "|---" * 8 + "|"
    for size in sorted(int(name.split()[1]) for name in tables if name.startswith("cpu ")):
        cpu, memory, requests = (
            tables[f"{name} {size}"]["figures"] for name in ("cpu", "memory", "requests")
        )
        ratio = cpu["load"]["ratios"][FORM_DATA]["median"]
        cells = (
            f"{size:,}",
            format_median(cpu["load"], " µs"),
            f"{ratio:.2f}",
            format_value(requests["load"]["median"] / size),
            format_median(memory["load"], " MiB"),
            format_median(cpu["load again"], " µs"),
            f"{requests['load again']['median']:.0f}",
            format_median(cpu["list"], " µs"),
        )
        yield f"| {' | '.join(cells)} |"


def render_missed_bounds(bounds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Render the number of met bounds, and a list of the missed ones."""
    missed = [bound for bound in bounds if not bound["held"]]
    yield f"{len(bounds) - len(missed)} of {len(bounds)} bounds and aims were met. Missed:"
    yield ""
    for bound in missed:
        # Runs of 2026-11-21 have an older wording.
        description = bound["what"].replace("x of the processor time of", "CPU time relative to")
        found = "not measured" if bound["found"] is None else format_value(bound["found"])
        limit = f"at least {bound['least']}" if "least" in bound else f"at most {bound['most']}"
        yield f"* {description}: {found} ({'aim' if bound['aim'] else 'bound'}: {limit})"


def format_median(figure: Mapping[str, Any] | None, unit: str) -> str:
    """Return a figure's median with its unit, or "-" if it was not measured."""
    return (
        "-" if figure is None or "problem" in figure else f"{format_value(figure['median'])}{unit}"
    )


def read_run(name: str) -> Run:
    """Read a committed run."""
    run: Run = json.loads((RESULTS / f"{name}.json").read_text())
    return run


def render_files() -> Mapping[Path, str]:
    """Return the text between the markers of each file."""
    client, scale = read_run("client"), read_run("scale")
    return {README: render_readme_table(client), GUIDE: render_numbers(client, scale)}


def read_written_part(path: Path) -> str:
    """Return the text between the markers of a file.

    Raises:
        ValueError: a marker is missing.
    """
    return _split_at_markers(path.read_text(encoding="utf-8"))[1].strip("\n")


def main() -> None:
    """Write the numbers into the README and the guide."""
    for path, numbers in render_files().items():
        before, _, after = _split_at_markers(path.read_text(encoding="utf-8"))
        path.write_text(f"{before}{BEGIN}\n{numbers}\n{END}{after}", encoding="utf-8")


def _split_at_markers(text: str) -> tuple[str, str, str]:
    before, begin, rest = text.partition(BEGIN)
    written, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"Missing marker: expected {BEGIN!r} and {END!r}.")
    return before, written, after


if __name__ == "__main__":
    main()
