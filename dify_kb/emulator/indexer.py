"""Index documents with simulated workers, stage durations and faults."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import define

from dify_kb.models import IndexingErrorCode
from dify_kb.rag import ChunkError, ExtractError

from .clocks import ClockStoppedError
from .faults.spec import RunFault, RunOutcome
from .history import ActiveRun, ActiveRuns
from .indexing_run import IndexingRun, RunAbortedError
from .stub_models import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .clocks import Clock
    from .faults import Faults
    from .history import History
    from .server_profile import ServerProfile
    from .settings import Settings
    from .store import DocumentRow, Store

T = TypeVar("T")

_log = logging.getLogger(__name__)


_MAX_INLINE_SIZE: Final = 16_384
"""Maximum size, in bytes, of text files that are indexed in the event loop: in a millisecond or
two, less than threads would add."""


class InjectedRunError(Exception):
    """Raised if a run was planned to fail; the message becomes the document's error.

    `details` are the fields that the indexing status has next to the message.
    """

    def __init__(self, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.details = details


_VECTOR_LIMIT_DETAILS: Final = {
    "error_code": IndexingErrorCode.VECTOR_SPACE_ESTIMATE_EXCEEDED,
    "estimated_vector_space_mb": 52,
    "vector_space_limit_mb": 50,
}

_VECTOR_LIMIT_TEXT: Final = (
    "The document needs about 52 MB of vector space, but your subscription has 50 MB."
)


@define(eq=False)
class _WorkerTask:
    """A task that a worker is processing."""

    scope: anyio.CancelScope
    # Checked by threads that outlive the cancelled scope.
    killed: bool = False

    def kill(self) -> None:
        """Stop the task immediately."""
        self.killed = True
        self.scope.cancel()


class Indexer:
    """Workers that index documents in the order in which they were queued.

    A run deletes the chunks that exist when it starts, and inserts its own during `splitting`. If
    a second run starts before the first has finished splitting, the document keeps the chunks of
    both, of old and new text; the first run sets `completed` and the second resets it (measured,
    1.14.2 with its default of four workers).
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Clock,
        faults: Faults,
        history: History,
        profile: ServerProfile,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._faults = faults
        self._active_runs = ActiveRuns(history, clock)
        self._workers_alive = anyio.Event()
        self._tasks: set[_WorkerTask] = set()
        self._profile = profile
        self._limiter: anyio.CapacityLimiter | None = None
        self._queue_sender, self._queue_receiver = anyio.create_memory_object_stream[
            tuple[str, float, bool]
        ](math.inf)

    def enqueue(self, document_id: str, /, *, hangs: bool = False) -> None:
        """Queue a document. Call this only in the loop that runs the indexer.

        With `hangs` the task occupies its worker until the server stops (measured).
        """
        self._queue_sender.send_nowait((document_id, self._clock.now(), hangs))

    def enqueue_unfinished(self) -> None:
        """Queue the documents whose indexing was unfinished when the server stopped."""
        for document_id in self._store.documents.list_unfinished_ids():
            self.enqueue(document_id)

    def close(self) -> None:
        """Discard the queue."""
        self._queue_sender.close()
        self._queue_receiver.close()

    async def run(self) -> None:
        """Run the workers until cancelled."""
        count = self._settings.workers or self._profile.workers
        self._limiter = anyio.CapacityLimiter(count)
        async with anyio.create_task_group() as workers:
            for _ in range(count):
                workers.start_soon(self._run_worker)

    def restart_workers(self) -> None:
        """Restart dead workers. Call this only in the loop that runs the indexer."""
        self._workers_alive.set()
        self._workers_alive = anyio.Event()

    def kill_workers(self, lost_count: int) -> None:
        """Kill and replace the workers. Call this only in the loop that runs the indexer.

        The tasks in progress are lost, and `lost_count` queued tasks (measured: 2 to 4 documents
        per kill).
        """
        with contextlib.suppress(anyio.WouldBlock):
            for _ in range(lost_count):
                self._queue_receiver.receive_nowait()
        for task in tuple(self._tasks):
            task.kill()

    async def _run_worker(self) -> None:
        free_at = 0.0
        async for document_id, queued, hangs in self._queue_receiver:
            task = _WorkerTask(anyio.CancelScope())
            with task.scope:
                self._tasks.add(task)
                try:
                    free_at = await self._process_task(
                        task, document_id, max(queued, free_at), hangs=hangs
                    )
                finally:
                    self._tasks.discard(task)
            if task.killed:
                free_at = self._clock.now()

    async def _process_task(
        self, task: _WorkerTask, document_id: str, start: float, *, hangs: bool
    ) -> float:
        """Run a task, and return the time at which its worker becomes free."""
        if hangs:
            await anyio.sleep_forever()
        row = self._store.documents.get_by_id(document_id)
        fault = None if row is None else self._faults.take_run_fault(row.name)
        while self._faults.are_workers_dead:
            await self._workers_alive.wait()
            start = self._clock.now()
            row = self._store.documents.get_by_id(document_id)
        if row is None or (fault is not None and fault.outcome is RunOutcome.LOSE):
            return start
        stage_timer = _StageTimer(self._clock, start)
        active_run = self._active_runs.start(row)
        try:
            status = await self._run_to_status(task, active_run, stage_timer, fault)
        except anyio.get_cancelled_exc_class():
            if task.killed:
                remaining = self._store.documents.get_by_id(document_id)
                self._active_runs.end(
                    active_run, "gone" if remaining is None else remaining.indexing_status
                )
            raise
        self._active_runs.end(active_run, status)
        # A run that failed while waiting did not take the time of its stages.
        return min(stage_timer.due_at, self._clock.now())

    async def _run_to_status(
        self,
        task: _WorkerTask,
        active_run: ActiveRun,
        stage_timer: _StageTimer,
        fault: RunFault | None,
    ) -> str:
        """Run the indexing of a document, and return its final status."""
        document_id, details = active_run.row.id, None
        try:
            return await self._index(task, active_run, stage_timer, fault)
        except RunAbortedError:
            return "gone"
        except InjectedRunError as error:
            message, details = str(error), error.details
        except (ExtractError, ChunkError, ModelError, ClockStoppedError) as error:
            message = str(error)
        except Exception as error:  # noqa: BLE001 -- any failure becomes the document's error
            _log.exception("indexing %s failed", document_id)
            message = str(error)
        return self._mark_failed(document_id, message, details)

    async def _index(
        self,
        task: _WorkerTask,
        active_run: ActiveRun,
        stage_timer: _StageTimer,
        fault: RunFault | None,
    ) -> str:
        settings, document_id = self._settings, active_run.row.id
        now, invoke = self._clock.now(), self._faults.call_model
        run = IndexingRun(
            self._store,
            self._clock,
            document_id,
            now,
            self._profile,
            invoke,
            lambda: task.killed,
        )
        perform = self._run_inline if _is_small(active_run.row) else self._run_in_thread
        texts = await perform(run.parse)
        await stage_timer.wait_for_stage(settings.parsing)
        run.start_splitting(texts)
        batches = await perform(lambda: run.split(texts, steps=settings.splitting > 0))
        for batch in batches:
            await stage_timer.wait_for_stage(settings.splitting / len(batches))
            await perform(partial(run.insert_batch, batch))
        if not batches:
            await stage_timer.wait_for_stage(settings.splitting)
        segments = [row for batch in batches for row in batch.rows]
        active_run.chunks = len(segments)
        await perform(lambda: run.start_indexing(segments))
        await stage_timer.wait_for_stage(settings.indexing)
        match fault:
            case RunFault(outcome=RunOutcome.ERROR):
                raise InjectedRunError(fault.text)
            case RunFault(outcome=RunOutcome.VECTOR_LIMIT):
                raise InjectedRunError(_VECTOR_LIMIT_TEXT, _VECTOR_LIMIT_DETAILS)
            case RunFault(outcome=RunOutcome.BLOCK):
                await anyio.sleep_forever()
            case RunFault(outcome=RunOutcome.HANG):
                return "indexing"
            case RunFault(outcome=RunOutcome.KILL):
                self.kill_workers(fault.lose)
                await anyio.sleep_forever()
        await perform(lambda: run.index(segments))
        return "completed"

    @staticmethod
    async def _run_inline(work: Callable[[], T]) -> T:
        await anyio.lowlevel.checkpoint()
        return work()

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        # `stop` must not wait for the work; unfinished work is repeated after the next start.
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)

    def _mark_failed(
        self, document_id: str, message: str, details: Mapping[str, object] | None
    ) -> str:
        now = self._clock.now()
        exists = self._store.documents.update(
            document_id,
            indexing_status="error",
            error=message,
            error_details=json.dumps(details) if details else None,
            stopped_at=now,
            updated_at=now,
        )
        return "error" if exists else "gone"


def _is_small(row: DocumentRow) -> bool:
    return row.file_size <= _MAX_INLINE_SIZE and row.file_extension in {"md", "markdown", "txt"}


class _StageTimer:
    """The time at which the current stage of a document is due to end."""

    def __init__(self, clock: Clock, start: float) -> None:
        self._clock = clock
        self.due_at = start

    async def wait_for_stage(self, seconds: float) -> None:
        """Wait for the end of a stage that takes `seconds`."""
        if not seconds:
            return
        self.due_at += seconds
        remaining = self.due_at - self._clock.now()
        if remaining > 0:
            await self._clock.sleep(remaining)
