"""How much the server can do at once: connections, processor time, and the locks of datasets."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, Final

import anyio

from .slots import Slots

if TYPE_CHECKING:
    from .call import Call
    from .settings import Settings

CREATES: Final = frozenset({"documents.create_by_file", "documents.create_by_text"})
"""Endpoints that a dataset takes one after the other."""

_SHAPE: Final = 4
"""Of the gamma distribution: times scatter by half of their mean, as measured."""

_NEWEST: Final = 0.5
"""How often a process goes on with what came last, else with anything: so the median hardly moves
under load while the 95th percentile grows ninefold, as measured. In the order of coming, both
would grow alike.
"""


class Capacity:
    """What calls wait for. Nothing here burns processor time; it is slept."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limited = bool(settings.connections)
        self._random = random.Random(settings.seed)
        self._slots = Slots(settings.processes, settings.connections)
        self._processors = [_Turns(self._random) for _ in range(settings.processes)]
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    @staticmethod
    def of(settings: Settings) -> Capacity | None:
        """Make it where anything is limited."""
        limits = (
            settings.connections,
            settings.create_cpu,
            settings.create_io,
            settings.dataset_lock,
        )
        return Capacity(settings) if any(limits) else None

    @property
    def starved(self) -> int:
        """How many connections had to wait for their place; any thread may ask."""
        return self._slots.starved

    async def admit(self, call: Call) -> None:
        """Wait for the place of a call's connection."""
        call.process = await self._slots.admit(call)

    async def work(self, call: Call) -> None:
        """Take the time that a create takes before its document is there."""
        if call.name not in CREATES:
            return
        settings = self._settings
        await self._processors[call.process].spend(self._scattered(settings.create_cpu))
        if settings.create_io:
            await anyio.sleep(self._scattered(settings.create_io))
        if settings.dataset_lock:
            async with self._locks[call.request.match_info["dataset_id"].lower()]:
                await anyio.sleep(settings.dataset_lock)

    def _scattered(self, mean: float) -> float:
        return self._random.gammavariate(_SHAPE, mean / _SHAPE) if mean else 0.0


class _Turns:
    """A processor that works for one at a time, and is not fair about who is next."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        self._busy = False
        self._waiting: list[anyio.Event] = []

    async def spend(self, seconds: float) -> None:
        """Work so long, after those who are before."""
        if not seconds:
            return
        if self._busy:
            turn = anyio.Event()
            self._waiting.append(turn)
            await turn.wait()
        self._busy = True
        try:
            await anyio.sleep(seconds)
        finally:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        newest = self._random.random() < _NEWEST
        index = -1 if newest else self._random.randrange(len(self._waiting))
        self._waiting.pop(index).set()
