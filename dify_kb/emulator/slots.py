"""The connections that the server's processes take, and who waits for one."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

import anyio
from attrs import define, field

from .bodies import whole

if TYPE_CHECKING:
    import asyncio

    from .call import Call

STARVED: Final = 0.5
"""Seconds of waiting for a connection that no working server lets one wait."""


@define(eq=False)
class _Waiter:
    since: float
    granted: anyio.Event = field(factory=anyio.Event)
    process: int = -1


class Slots:
    """Connections by process: each is taken from its first request until it closes (measured).

    One more has to wait until one closes. What its client sends meanwhile is held by the kernel
    and by nginx, so that the call is carried out also when the client has given up (measured).
    """

    def __init__(self, processes: int, connections: int) -> None:
        self._connections = connections
        self._held = [0] * processes
        self._processes: dict[asyncio.Task[None], int] = {}
        self._waiters: deque[_Waiter] = deque()
        self._starved = 0

    @property
    def starved(self) -> int:
        """How many connections had to wait longer than `STARVED`; any thread may ask."""
        long_ago = time.monotonic() - STARVED
        return self._starved + sum(waiter.since < long_ago for waiter in tuple(self._waiters))

    async def admit(self, call: Call) -> int:
        """Wait until the call's connection has its place, and tell the process it is of."""
        connection = call.request.task
        process = self._processes.get(connection)
        if process is None:
            process = await self._place(call)
            self._processes[connection] = process
            # The task of a connection ends when it is closed and its last call is done.
            connection.add_done_callback(self._leave)
        return process

    async def _place(self, call: Call) -> int:
        process = min(range(len(self._held)), key=self._held.__getitem__)
        if not self._connections or self._held[process] < self._connections:
            self._held[process] += 1
            return process
        waiter = _Waiter(time.monotonic())
        self._waiters.append(waiter)
        try:
            call.sent = await whole(call.request, call.limit)
            await waiter.granted.wait()
        except BaseException:
            self._give_up(waiter)
            raise
        return waiter.process

    def _leave(self, connection: asyncio.Task[None]) -> None:
        self._release(self._processes.pop(connection))

    def _release(self, process: int) -> None:
        if not self._waiters:
            self._held[process] -= 1
            return
        waiter = self._waiters.popleft()
        self._starved += time.monotonic() - waiter.since > STARVED
        waiter.process = process
        waiter.granted.set()

    def _give_up(self, waiter: _Waiter) -> None:
        if waiter.process >= 0:
            self._release(waiter.process)
        else:
            self._waiters.remove(waiter)
