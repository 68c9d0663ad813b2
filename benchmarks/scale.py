"""How the client's cost of a document grows with their number.

`python -m benchmarks scale [--sizes N …] [--json FILE]` loads 1,000, 10,000 and 100,000 files of 64
bytes into an embedded server in another process that indexes as fast as it can, follows them until
they are indexed, loads the same again, and goes through the list; each in a process of its own,
start-up not counted. Prints processor time and requests per document and the most
memory that was resident, with the ratio to a plain loop of aiohttp's `FormData` that sends some of
the same files to the same server. Fails when a bound is missed. 100,000 take some 6 minutes; only
the smallest size is measured more than once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import environments
import many
from emulated import Emulated, emulated
from figures import Bound, Table, written
from machine import circumstances, title
from rounds import figure, note, table
from ways import FORM_DATA, Runner, Way

from dify_kb import AsyncClient
from dify_kb.emulator import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SIZES = (1000, 10_000, 100_000)
ROUNDS = 3
AT_ONCE = 8
FLOOR = Way(FORM_DATA, "aiohttp", "form_data")
LOAD, AGAIN, LIST = (
    Way("load", "scale", "load"),
    Way("load again", "scale", "load"),
    Way("list", "scale", "list"),
)
FLOOR_FILES = 500
LONGEST = 3600.0

GROWTH = 1.5
"""What a document of the largest load may cost, as a multiple of one of the smallest."""

MOST = 1.1
"""Requests that a loaded document may take, those to follow it included."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print tables, and fail when a bound is missed."""
    options = parsed(arguments)
    told = circumstances()
    print(title(told))
    runner = Runner(environments.DEFAULT, LONGEST)
    tables: dict[str, Table] = {}
    for size in sorted(options.sizes):
        rounds = ROUNDS if size <= SIZES[0] else 1
        for each in measured(runner, size, rounds):
            tables[each.name] = each
            print(f"\n{each.text()}", flush=True)
    found = list(bounds(tables, sorted(options.sizes)))
    print()
    for bound in found:
        print(bound.text())
    if options.json is not None:
        run = {**told, **written(tables, found)}
        options.json.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return 0 if all(bound.held for bound in found) else 1


def measured(runner: Runner, size: int, rounds: int) -> Iterator[Table]:
    """Measure one size."""
    found: dict[str, list[Mapping[str, Any]]] = {
        way.label: [] for way in (FLOOR, LOAD, AGAIN, LIST)
    }
    for index in range(rounds):
        with tempfile.TemporaryDirectory() as temporary, emulated(Settings(history=100)) as server:
            note(f"{size:,} documents, round {index + 1} of {rounds}")
            for label, told in once(runner, size, Path(temporary), server).items():
                found[label].append(told)
    note("")
    where = f"{size:,} documents"
    yield table(
        f"cpu {size}", f"processor time per document, {where}", "us", (FORM_DATA,), found,
        lambda told: told["cpu"] / told["uploads"] * 1e6,
    )  # fmt: skip
    yield table(
        f"memory {size}", f"memory resident at most, {where}", "MiB", (FORM_DATA,), found,
        lambda told: told["resident"] / 2**20,
    )  # fmt: skip
    yield Table(
        name=f"requests {size}",
        title=f"requests, {where}",
        unit="requests",
        floors=(),
        figures=[
            figure(way.label, found[way.label], lambda told: told["requests"])
            for way in (LOAD, AGAIN, LIST)
        ],
    )


def once(
    runner: Runner, size: int, folder: Path, server: Emulated
) -> Mapping[str, Mapping[str, Any]]:
    """Do everything once, with an empty base to begin with."""
    files, few, journal = folder / "files", folder / "few", folder / "journal.db"
    many.fill(files, size)
    many.fill(few, FLOOR_FILES)
    plain, grown = anyio.run(bases, server)
    job = {"url": server.url, "key": server.key, "at_once": AT_ONCE, "warm_up": str(few / "0000")}
    load = {**job, "dataset": grown, "folder": str(files), "journal": str(journal)}
    return {
        FORM_DATA: runner.send(
            FLOOR, {**job, "dataset": plain, "folder": str(few / "0000"), "held": True}
        ),
        LOAD.label: runner.send(LOAD, load),
        AGAIN.label: runner.send(AGAIN, load),
        LIST.label: runner.send(LIST, load),
    }


async def bases(server: Emulated) -> tuple[str, str]:
    """Make a base for the floor, and one that grows."""
    async with AsyncClient(server.url, server.key) as client:
        plain = await client.datasets.create("plain", indexing_technique="economy")
        grown = await client.datasets.create("grown", indexing_technique="economy")
        return plain.id, grown.id


def bounds(tables: Mapping[str, Table], sizes: Sequence[int]) -> Iterator[Bound]:
    """Judge what was measured."""
    for size in sizes:
        memory = max(tables[f"memory {size}"][LOAD.label].values, default=None)
        yield Bound(what=f"MiB resident, {size:,} documents", limit=many.MOST / 2**20, found=memory)
        requests = max(tables[f"requests {size}"][LOAD.label].values, default=None)
        each = requests and requests / size
        yield Bound(what=f"requests per document, {size:,} documents", limit=MOST, found=each)
    first, last = (tables[f"cpu {size}"][LOAD.label].values for size in (sizes[0], sizes[-1]))
    growth = (
        sorted(last)[len(last) // 2] / sorted(first)[len(first) // 2] if first and last else None
    )
    yield Bound(
        what=f"processor time of a document, {sizes[-1]:,} to {sizes[0]:,}",
        limit=GROWTH,
        found=growth,
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, metavar="N")
    parser.add_argument("--json", type=Path, help="write the run to this file too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
