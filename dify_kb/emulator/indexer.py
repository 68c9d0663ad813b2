"""The slow part: documents become chunks that are found, in stages that take their time."""

from __future__ import annotations

import contextlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from attrs import define

from dify_kb.corpus import ChunkError, ExtractError

from .clock import StillError
from .faults.spec import Ending, RunFault
from .going import Going, Started
from .runs import GoneError, Run
from .stand_ins import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .clock import Clock
    from .faults import Faults
    from .history import History
    from .profile import Profile
    from .settings import Settings
    from .store import Store

T = TypeVar("T")

_log = logging.getLogger(__name__)


class PlannedError(Exception):
    """A run was planned to fail; its text becomes the document's error."""


@define(eq=False)
class _Task:
    """A task that a worker has taken."""

    scope: anyio.CancelScope
    # Threads that outlive a cancelled scope look at it.
    killed: bool = False

    def kill(self) -> None:
        """Stop it where it is."""
        self.killed = True
        self.scope.cancel()


class Indexer:
    """Workers that take documents in the order of their creates.

    A run deletes the chunks that exist when it starts, and inserts its own through `splitting`. So
    a second run that starts before the first has finished splitting leaves chunks of both, of old
    and new text, and `completed` is shown by the first and taken back by the second (measured,
    1.14.2 with its default of four workers).
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        faults: Faults,
        history: History,
        profile: Profile,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._going = Going(history, clock)
        self._alive = anyio.Event()
        self._tasks: set[_Task] = set()
        self._profile = profile
        self._limiter: anyio.CapacityLimiter | None = None
        self._in, self._out = anyio.create_memory_object_stream[tuple[str, float, bool]](math.inf)

    def enqueue(self, document_id: str, /, *, hangs: bool = False) -> None:
        """Queue a document; only in the loop that runs the indexer. One that hangs keeps its
        worker until the server stops (measured).
        """
        self._in.send_nowait((document_id, self._clock.now(), hangs))

    def resume(self) -> None:
        """Queue what was not finished when the server stopped."""
        for document_id in self._store.documents.unfinished():
            self.enqueue(document_id)

    def close(self) -> None:
        """Forget the queue."""
        self._in.close()
        self._out.close()

    async def run(self) -> None:
        """Index until cancelled."""
        self._limiter = anyio.CapacityLimiter(self._settings.workers)
        async with anyio.create_task_group() as workers:
            for _ in range(self._settings.workers):
                workers.start_soon(self._work)

    def revive(self) -> None:
        """Have workers that died go on; only in the loop that runs the indexer."""
        self._alive.set()
        self._alive = anyio.Event()

    def kill(self, lose: int) -> None:
        """Kill the workers, and start others; only in the loop that runs the indexer.

        The tasks that they have taken are lost, and `lose` that wait in the queue (measured: 2 to
        4 documents a kill).
        """
        with contextlib.suppress(anyio.WouldBlock):
            for _ in range(lose):
                self._out.receive_nowait()
        for task in tuple(self._tasks):
            task.kill()

    async def _work(self) -> None:
        free = 0.0
        async for document_id, queued, hangs in self._out:
            task = _Task(anyio.CancelScope())
            with task.scope:
                self._tasks.add(task)
                try:
                    free = await self._carry_out(task, document_id, max(queued, free), hangs=hangs)
                finally:
                    self._tasks.discard(task)
            if task.killed:
                free = self._clock.now()

    async def _carry_out(
        self, task: _Task, document_id: str, start: float, *, hangs: bool
    ) -> float:
        """Carry a task out, and return the time from which its worker is free."""
        if hangs:
            await anyio.sleep_forever()
        row = self._store.documents.find(document_id)
        fault = None if row is None else self._faults.take_run(row.name)
        while self._faults.dead:
            await self._alive.wait()
            row = self._store.documents.find(document_id)
        if row is None or (fault is not None and fault.ending is Ending.LOSE):
            return start
        pace = _Pace(self._clock, start)
        started = self._going.start(row)
        try:
            status = await self._outcome(task, started, pace, fault)
        except anyio.get_cancelled_exc_class():
            if task.killed:
                left = self._store.documents.find(document_id)
                self._going.end(started, "gone" if left is None else left.indexing_status)
            raise
        self._going.end(started, status)
        # A run that gave up waiting did not take the time until then.
        return min(pace.due, self._clock.now())

    async def _outcome(
        self, task: _Task, started: Started, pace: _Pace, fault: RunFault | None
    ) -> str:
        """Run, and tell the status that the document is left with."""
        document_id = started.row.id
        try:
            return await self._index(task, started, pace, fault)
        except GoneError:
            return "gone"
        except (ExtractError, ChunkError, ModelError, PlannedError, StillError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 -- any failure is the document's error
            _log.exception("indexing %s failed", document_id)
            why = str(error)
        return self._fail(document_id, why)

    async def _index(
        self, task: _Task, started: Started, pace: _Pace, fault: RunFault | None
    ) -> str:
        settings, document_id = self._settings, started.row.id
        now, invoke = self._clock.now(), self._faults.invoke
        run = Run(
            self._store,
            self._clock,
            document_id,
            now,
            self._profile,
            invoke,
            lambda: task.killed,
        )
        texts = await self._thread(run.parse)
        await pace.stage(settings.parsing)
        run.enter_splitting(texts)
        portions = await self._thread(lambda: run.split(texts, steps=settings.splitting > 0))
        for portion in portions:
            await pace.stage(settings.splitting / len(portions))
            await self._thread(partial(run.insert, portion))
        if not portions:
            await pace.stage(settings.splitting)
        segments = [row for portion in portions for row in portion.rows]
        started.chunks = len(segments)
        await self._thread(lambda: run.enter_indexing(segments))
        await pace.stage(settings.indexing)
        match fault:
            case RunFault(ending=Ending.ERROR):
                raise PlannedError(fault.text)
            case RunFault(ending=Ending.BLOCK):
                await anyio.sleep_forever()
            case RunFault(ending=Ending.HANG):
                return "indexing"
            case RunFault(ending=Ending.KILL):
                self.kill(fault.lose)
                await anyio.sleep_forever()
        await self._thread(lambda: run.index(segments))
        return "completed"

    async def _thread(self, work: Callable[[], T]) -> T:
        # A stop must not wait for the work; what it leaves undone is done again later.
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)

    def _fail(self, document_id: str, why: str) -> str:
        now = self._clock.now()
        there = self._store.documents.update(
            document_id, indexing_status="error", error=why, stopped_at=now, updated_at=now
        )
        return "error" if there else "gone"


class _Pace:
    """The time by which the stages of a document are over, at the latest."""

    def __init__(self, clock: Clock, start: float) -> None:
        self._clock = clock
        self.due = start

    async def stage(self, seconds: float) -> None:
        """Wait for the end of a stage."""
        if not seconds:
            return
        self.due += seconds
        left = self.due - self._clock.now()
        if left > 0:
            await self._clock.sleep(left)
