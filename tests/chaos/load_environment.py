"""The environment of a fault case: server, client, folder, and the results of its loads."""

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
"""The API key; it must not appear in any output (I10)."""

CREATE = "documents.create_by_file"

_SHORT = Policy().scaled(0.01)

POLICY = attrs.evolve(
    _SHORT,
    timeout=Timeout(connect=0.5, read=1.0, answer=0.4, progress=0.5),
    load_timing=attrs.evolve(_SHORT.load_timing, late_create_after_timeout=0.6),
)
"""The default waits divided by 100: a create may still be executed 0.3 s after a disconnect and
0.6 s after a timeout. The response timeout is long enough for a busy machine."""


@frozen(kw_only=True)
class LoadResult:
    """A load with the result of each file."""

    report: LoadReport
    results: Mapping[str, ItemResult]
    calls: Sequence[Exchange]
    """Requests received during the load."""

    @property
    def sends(self) -> int:
        """The number of creates, executed or not."""
        return sum(call.endpoint == CREATE for call in self.calls)

    @property
    def lookups(self) -> int:
        """The number of all other calls."""
        return len(self.calls) - self.sends

    @property
    def created(self) -> set[str | None]:
        """The names of the documents of executed creates."""
        return {call.document for call in self.calls if call.endpoint == CREATE and call.committed}


@define(kw_only=True)
class LoadEnvironment:
    """The environment of a fault case."""

    emulator: Emulator
    folder: Path
    dataset: Dataset
    client: AsyncClient
    journal: Path
    loads: list[LoadResult] = field(factory=list)
    changed_files: list[str] = field(factory=list)
    """Files changed after they were loaded, one entry per change."""

    wedged_documents: set[str] = field(factory=set)
    """Documents whose indexing never ends; creating them again is not a violation."""

    error_texts: list[str] = field(factory=list)
    """Texts of errors, searched for the key."""

    async def load(self, source: Any = None, **options: Any) -> LoadResult:
        """Load the folder and store the result."""
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
        """The number of creates so far."""
        return sum(call.endpoint == CREATE for call in self.emulator.history)


@asynccontextmanager
async def create_environment(
    emulator: Emulator, root: Path, files: int = 20, *, size: int = 0, policy: Policy = POLICY
) -> AsyncIterator[LoadEnvironment]:
    """Create an environment with a number of files of about `size` bytes on a running server."""
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
    """Write files that each contain a unique word."""
    for number in range(files):
        line = f"the wombat w{number:05}x digs at night{text}\n"
        (folder / f"{number:05}.md").write_text(line * max(1, size // len(line)))


async def wait_until(condition: Callable[[], object]) -> None:
    """Poll a condition that depends on another thread or on this event loop."""
    while not condition():  # noqa: ASYNC110 -- there is no event
        await anyio.sleep(0.002)


def find_free_port() -> int:
    """Return a free port that a server can use again after a restart."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def list_written_files(root: Path) -> Iterator[Path]:
    """Return the files that a load may have written."""
    return (path for path in root.rglob("*") if path.is_file() and "docs" not in path.parts)
