"""A server, a client and a folder for one cell of the matrix, and what its loads came to."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
from attrs import define, field, frozen

from dify_kb import AsyncClient, Dataset, ItemResult, LoadReport, Policy, Timeout
from dify_kb.emulator import Emulator, Exchange

KEY = "dataset-chaos-5ecret"
"""What must be found nowhere afterwards (I10)."""

CREATE = "documents.create_by_file"

_SHORT = Policy().scaled(0.01)

POLICY = attrs.evolve(
    _SHORT,
    timeout=Timeout(connect=0.5, read=1.0, answer=0.4, progress=0.5),
    load_timing=attrs.evolve(_SHORT.load_timing, late_create_after_timeout=0.6),
)
"""Users' waits by a hundred: a create that broke may land within 0.3 s, one that timed out within
0.6 s. An answer is waited for so long that this machine, busy as it may be, gives it."""


@frozen(kw_only=True)
class LoadResult:
    """A load, and how each of its files ended."""

    report: LoadReport
    results: Mapping[str, ItemResult]
    calls: Sequence[Exchange]
    """What came in meanwhile."""

    @property
    def sends(self) -> int:
        """Count the creates, carried out or not."""
        return sum(call.endpoint == CREATE for call in self.calls)

    @property
    def lookups(self) -> int:
        """Count all other calls."""
        return len(self.calls) - self.sends

    @property
    def created(self) -> set[str | None]:
        """Name the documents of creates that were carried out."""
        return {call.document for call in self.calls if call.endpoint == CREATE and call.committed}


@define(kw_only=True)
class LoadEnvironment:
    """Where a cell happens."""

    emulator: Emulator
    folder: Path
    dataset: Dataset
    client: AsyncClient
    journal: Path
    loads: list[LoadResult] = field(factory=list)
    changed_files: list[str] = field(factory=list)
    """The files that were changed after they were loaded, once for each time."""

    wedged_documents: set[str] = field(factory=set)
    """The documents whose run will never end, so that they may be created beside it."""

    error_texts: list[str] = field(factory=list)
    """What was said in errors, for the search for the key."""

    async def load(self, source: Any = None, **options: Any) -> LoadResult:
        """Load the folder, and remember what came of it."""
        results: dict[str, ItemResult] = {}
        listener = options.pop("on_event", None)

        def listen(event: object) -> None:
            if isinstance(event, ItemResult):
                assert event.key not in results, f"{event.key} ended twice"
                results[event.key] = event
            if listener is not None:
                listener(event)

        before = len(self.emulator.history)
        report = await self.client.load(
            self.dataset,
            source if source is not None else self.folder,
            **{"journal": self.journal, "stall_after": 1.0, **options},
            on_event=listen,
        )
        loaded = LoadResult(report=report, results=results, calls=self.emulator.history[before:])
        self.loads.append(loaded)
        return loaded

    @property
    def sends(self) -> int:
        """Count the creates so far."""
        return sum(call.endpoint == CREATE for call in self.emulator.history)


@asynccontextmanager
async def create_environment(
    emulator: Emulator, root: Path, files: int = 20, *, size: int = 0, policy: Policy = POLICY
) -> AsyncIterator[LoadEnvironment]:
    """Set a environment with so many files, of about `size` bytes, on a server that runs."""
    folder = root / "docs"
    folder.mkdir()
    write_files(folder, files, size=size)
    async with AsyncClient(emulator.url, KEY, policy=policy) as client:
        yield LoadEnvironment(
            emulator=emulator,
            folder=folder,
            dataset=await client.datasets.create("chaos", indexing_technique="economy"),
            client=client,
            journal=root / "journal.db",
        )


def write_files(folder: Path, files: int, *, size: int = 0, text: str = "") -> None:
    """Write files of which each holds a word that no other has."""
    for number in range(files):
        line = f"the wombat w{number:05}x digs at night{text}\n"
        (folder / f"{number:05}.md").write_text(line * max(1, size // len(line)))


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something that happens in another thread, or to this loop."""
    while not condition():  # noqa: ASYNC110 -- nobody tells
        await anyio.sleep(0.002)


def find_free_port() -> int:
    """Find a port that a server can have again after it was away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def list_written_files(root: Path) -> Iterator[Path]:
    """Go through what a load may have written."""
    return (path for path in root.rglob("*") if path.is_file() and "docs" not in path.parts)
