"""Run the embedded server in another process."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from dify_kb.emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class PipeEnd(Protocol):
    """An end of a pipe between processes."""

    def send(self, obj: Any, /) -> None:
        """Send an object."""
        ...

    def recv(self) -> Any:
        """Wait for an object and return it."""
        ...


@frozen
class EmulatorProcess:
    """A running server: its address, its counter of starved connections and its fault plans."""

    url: str
    key: str
    _pipe: PipeEnd

    def count_starved(self) -> int:
        """Return how many connections have waited for a slot."""
        return int(self._call("starved"))

    def plan_faults(self, plans: Mapping[str, object]) -> None:
        """Plan faults, as with `Faults.load`."""
        self._call("load", plans)

    def stop_random(self) -> None:
        """Stop random faults."""
        self._call("stop_random")

    def _call(self, *words: object) -> Any:
        self._pipe.send(words)
        return self._pipe.recv()


@contextmanager
def run_emulator(settings: Settings) -> Iterator[EmulatorProcess]:
    """Run a server with these settings until the block ends."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(settings, there))
    process.start()
    try:
        url, key = here.recv()
        yield EmulatorProcess(url, key, here)
    finally:
        here.send(("stop",))
        process.join()


def _serve(settings: Settings, pipe: PipeEnd) -> None:
    with Emulator(settings=settings) as server:
        pipe.send((server.url, server.api_key))
        while True:
            match pipe.recv():
                case ("starved",):
                    pipe.send(server.starved_connections)
                case ("load", plans):
                    server.faults.load(plans)
                    pipe.send(None)
                case ("stop_random",):
                    server.faults.stop_random()
                    pipe.send(None)
                case _:
                    return
