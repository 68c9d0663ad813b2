"""Simulate the capacity of a server: connection slots, processor time and dataset locks."""

from __future__ import annotations

import random
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

import anyio
from attrs import define, field

from .request_body import read_whole_body

if TYPE_CHECKING:
    import asyncio

    from .request_context import ApiCall
    from .settings import Settings

CREATE_ENDPOINTS: Final = frozenset({"documents.create_by_file", "documents.create_by_text"})
"""Endpoints that a dataset lock serializes."""

_GAMMA_SHAPE: Final = 4
"""Shape of the gamma distribution: the standard deviation is half of the mean (measured)."""

_NEWEST_FIRST_PROBABILITY: Final = 0.5
"""Probability that a process picks the newest waiting create instead of a random one.

With 0.5 the median hardly changes under load while the 95th percentile grows ninefold (measured).
In order of arrival, both would grow alike.
"""


class CapacityModel:
    """The simulated limits of a server. Work is simulated by sleeping, not by processor load."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._slots = ConnectionSlots(settings.processes, settings.connections)
        self._processors = [_Processor(self._random) for _ in range(settings.processes)]
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    @staticmethod
    def from_settings(settings: Settings) -> CapacityModel | None:
        """Create the model; None if the settings limit nothing."""
        limits = (
            settings.connections,
            settings.create_cpu,
            settings.create_io,
            settings.dataset_lock,
        )
        return CapacityModel(settings) if any(limits) else None

    @property
    def starved_connections(self) -> int:
        """Number of connections that waited too long for a slot. Thread-safe."""
        return self._slots.starved_connections

    async def admit(self, call: ApiCall) -> None:
        """Wait for a connection slot."""
        call.worker_process = await self._slots.admit(call)

    async def simulate_work(self, call: ApiCall) -> None:
        """Wait for the simulated duration of a create; return immediately for other calls."""
        if call.endpoint_name not in CREATE_ENDPOINTS:
            return
        settings = self._settings
        await self._processors[call.worker_process].run(self._sample_time(settings.create_cpu))
        if settings.create_io:
            await anyio.sleep(self._sample_time(settings.create_io))
        if settings.dataset_lock:
            async with self._locks[call.request.match_info["dataset_id"].lower()]:
                await anyio.sleep(settings.dataset_lock)

    def _sample_time(self, mean: float) -> float:
        return self._random.gammavariate(_GAMMA_SHAPE, mean / _GAMMA_SHAPE) if mean else 0.0


class _Processor:
    """A processor that runs one task at a time, in random order with newer tasks preferred."""

    def __init__(self, random_source: random.Random) -> None:
        self._random = random_source
        self._busy = False
        self._waiting: list[anyio.Event] = []

    async def run(self, seconds: float) -> None:
        """Occupy the processor for `seconds`, waiting while it is busy."""
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
            self._start_next()

    def _start_next(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        newest = self._random.random() < _NEWEST_FIRST_PROBABILITY
        index = -1 if newest else self._random.randrange(len(self._waiting))
        self._waiting.pop(index).set()


STARVATION_DELAY: Final = 0.5
"""Seconds of waiting for a connection slot that count as starvation."""


@define(eq=False)
class _ConnectionWaiter:
    waiting_since: float
    granted: anyio.Event = field(factory=anyio.Event)
    process: int = -1


class ConnectionSlots:
    """Connection slots of each process, occupied from the first request until close (measured).

    Excess connections wait until another one closes. Kernel and nginx buffer the request of a
    waiting connection, so it is processed even if the client has given up (measured).
    """

    def __init__(self, processes: int, connections: int) -> None:
        self._connections = connections
        self._slots_in_use = [0] * processes
        self._process_of_connection: dict[asyncio.Task[None], int] = {}
        self._waiters: deque[_ConnectionWaiter] = deque()
        self._starved_count = 0

    @property
    def starved_connections(self) -> int:
        """Number of connections that waited longer than `STARVATION_DELAY`. Thread-safe."""
        cutoff = time.monotonic() - STARVATION_DELAY
        return self._starved_count + sum(
            waiter.waiting_since < cutoff for waiter in tuple(self._waiters)
        )

    async def admit(self, call: ApiCall) -> int:
        """Wait until the connection of a call has a slot; return the number of its process."""
        connection = call.request.task
        process = self._process_of_connection.get(connection)
        if process is None:
            process = await self._wait_for_slot(call)
            self._process_of_connection[connection] = process
            # The task of a connection ends when it is closed and its last request is done.
            connection.add_done_callback(self._on_connection_closed)
        return process

    async def _wait_for_slot(self, call: ApiCall) -> int:
        process = min(range(len(self._slots_in_use)), key=self._slots_in_use.__getitem__)
        if not self._connections or self._slots_in_use[process] < self._connections:
            self._slots_in_use[process] += 1
            return process
        waiter = _ConnectionWaiter(time.monotonic())
        self._waiters.append(waiter)
        try:
            call.body = await read_whole_body(call.request, call.max_body)
            await waiter.granted.wait()
        except BaseException:
            self._cancel_wait(waiter)
            raise
        return waiter.process

    def _on_connection_closed(self, connection: asyncio.Task[None]) -> None:
        self._release(self._process_of_connection.pop(connection))

    def _release(self, process: int) -> None:
        if not self._waiters:
            self._slots_in_use[process] -= 1
            return
        waiter = self._waiters.popleft()
        self._starved_count += time.monotonic() - waiter.waiting_since > STARVATION_DELAY
        waiter.process = process
        waiter.granted.set()

    def _cancel_wait(self, waiter: _ConnectionWaiter) -> None:
        if waiter.process >= 0:
            self._release(waiter.process)
        else:
            self._waiters.remove(waiter)
