"""The README's numbers, written from the committed runs.

`python benchmarks/readme_numbers.py` writes them into the README, between the two markers there,
from `benchmarks/results/client.json` and `scale.json`; a test renders them again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison_tables import format_value
from upload_clients import ACCEPTED, FLOOR, FORM_DATA, OWN_PACE

RESULTS = Path(__file__).with_name("results")
README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- Written by benchmarks/readme_numbers.py; do not edit. -->"
END = "<!-- written until here -->"

Run = Mapping[str, Any]

COLUMNS = ("cpu 32", "wall 50", "memory 4 KiB", "memory 14 MB", "lag 14 MB")
HEADS = (
    "processor time of an upload",
    f"x {FLOOR}",
    f"x {FORM_DATA}",
    "wall time at 50 ms latency",
    "memory, 5,000 of 4 KiB",
    "memory, 32 of 14 MB",
    "lag, 32 of 14 MB",
)


def render_numbers(client: Run, scale: Run) -> str:
    """Render the numbers of a run of each."""
    return "\n".join(
        [
            *describe_machine(client),
            "",
            *render_comparison(client),
            "",
            *render_other_figures(client),
            "",
            *render_growth(scale),
            "",
            *render_missed_bounds([*client["bounds"], *scale["bounds"]]),
        ]
    )


def describe_machine(run: Run) -> Iterator[str]:
    """Tell what it was measured on."""
    machine, versions = run["machine"], run["versions"]
    yield (
        f"Python {run['python']}, aiohttp {versions['aiohttp']}, {machine['cpus']} CPUs"
        f" ({machine['processor']}), {run['at'][:10]}; medians, with the least and the most, of"
        " runs in processes of their own, in turn,"
    )
    yield "against a server in another process that does nothing but answer. 4 KiB, 32 in flight:"


def render_comparison(run: Run) -> Iterator[str]:
    """Compare the ways to upload."""
    yield f"| | {' | '.join(HEADS)} |"
    yield "|---" * (len(HEADS) + 1) + "|"
    tables = run["tables"]
    broken: list[str] = []
    for way, cpu in tables["cpu 32"]["figures"].items():
        if "problem" in cpu:
            broken.append(f"{way}: {cpu['problem']}")
            continue
        units = (" us", " ms", " MiB", " MiB", " ms")
        cells = [
            format_median(tables[column]["figures"].get(way), unit)
            for column, unit in zip(COLUMNS, units, strict=True)
        ]
        ratios = [f"{cpu['ratios'][floor]['median']:.2f}" for floor in (FLOOR, FORM_DATA)]
        spread = f" ({format_value(cpu['low'])} to {format_value(cpu['high'])})"
        yield f"| {way} | {' | '.join([cells[0] + spread, *ratios, *cells[1:]])} |"
    if broken:
        yield ""
        yield f"Not measured: {'; '.join(broken)}."


def render_other_figures(run: Run) -> Iterator[str]:
    """Tell the figures that are not of uploads."""
    tables = run["tables"]
    start, calls = (tables[name]["figures"] for name in ("start-up", "blocking"))
    decoding = tables["decoding"]["figures"]
    ours = start["from dify_kb import AsyncClient"]
    yield (
        f"* Start-up: `from dify_kb import AsyncClient` {format_median(ours, ' ms')},"
        f" {ours['ratios']['import aiohttp']['median']:.2f} x `import aiohttp`."
    )
    yield (
        f"* A blocking call takes {format_median(calls['blocking on top of async'], ' ms')} more"
        f" than its async twin of {format_median(calls['ping, async'], ' ms')}."
    )
    each = ", ".join(
        f"{format_value(tables[f'watching {number}']['figures']['load']['median'])} of {number:,}"
        for number in (100, 1000, 10_000)
    )
    yield f"* GETs to see a document indexed: {each}."
    for latency in (50, 200):
        ways = tables[f"wall {latency}"]["figures"]
        yield (
            f"* A load that is not told how many uploads to have in flight finds it out: in its"
            f" first 5 s, at {latency} ms latency, it takes {format_median(ways[OWN_PACE], ' ms')}"
            f" for a file, with `concurrency=32` {format_median(ways[ACCEPTED], ' ms')}."
        )
    names = ", ".join(f"{way} {format_median(figure, ' us')}" for way, figure in decoding.items())
    yield f"* Decoding a document of a list: {names}."


def render_growth(run: Run) -> Iterator[str]:
    """Tell how the cost of a document grows."""
    tables = run["tables"]
    yield (
        "| loaded into the embedded server | processor time each | x " + FORM_DATA + " |"
        " requests each | memory | the same again, each | requests | listing, each |"
    )
    yield "|---" * 8 + "|"
    for size in sorted(int(name.split()[1]) for name in tables if name.startswith("cpu ")):
        cpu, memory, requests = (
            tables[f"{name} {size}"]["figures"] for name in ("cpu", "memory", "requests")
        )
        ratio = cpu["load"]["ratios"][FORM_DATA]["median"]
        cells = (
            f"{size:,}",
            format_median(cpu["load"], " us"),
            f"{ratio:.2f}",
            format_value(requests["load"]["median"] / size),
            format_median(memory["load"], " MiB"),
            format_median(cpu["load again"], " us"),
            f"{requests['load again']['median']:.0f}",
            format_median(cpu["list"], " us"),
        )
        yield f"| {' | '.join(cells)} |"


def render_missed_bounds(bounds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Tell which bounds were missed."""
    missed = [bound for bound in bounds if not bound["held"]]
    yield f"{len(bounds) - len(missed)} of {len(bounds)} bounds and aims held. Missed:"
    yield ""
    for bound in missed:
        found = "not measured" if bound["found"] is None else format_value(bound["found"])
        limit = f"at least {bound['least']}" if "least" in bound else f"at most {bound['most']}"
        yield f"* {bound['what']}: {found} ({'aim' if bound['aim'] else 'bound'}: {limit})"


def format_median(figure: Mapping[str, Any] | None, unit: str) -> str:
    """Write a median with its unit."""
    return (
        "-" if figure is None or "problem" in figure else f"{format_value(figure['median'])}{unit}"
    )


def read_run(name: str) -> Run:
    """Read a committed run."""
    run: Run = json.loads((RESULTS / f"{name}.json").read_text())
    return run


def main() -> None:
    """Write the numbers into the README."""
    numbers = render_numbers(read_run("client"), read_run("scale"))
    between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    README.write_text(
        between.sub(lambda _: f"{BEGIN}\n{numbers}\n{END}", README.read_text(), count=1)
    )


if __name__ == "__main__":
    main()
