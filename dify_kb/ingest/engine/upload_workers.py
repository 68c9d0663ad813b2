"""Upload queued files: each worker waits for admission, sends a file and reports the result."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.config import LoadTiming
from dify_kb.errors import (
    BadRequestError,
    ConnectError,
    JournalError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaExceededError,
    RateLimitedError,
    SourceChangedError,
    SourceError,
    TransportError,
)
from dify_kb.ingest.error_classification import (
    is_from_other_server,
    is_transient,
    refusal_signature,
)
from dify_kb.ingest.journal import (
    NameTakenError,
)
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.sources.document_names import file_extension
from dify_kb.transport.clock import loop_time

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent, FileState
from .uploader import Uploader

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .tracked_file import TrackedFile


_log = logging.getLogger(__name__)


@define(kw_only=True)
class UploadWorkers:
    """Workers that send queued files, concurrently up to the admission limit.

    Args:
        pause: waits while results arrive faster than they are consumed.
    """

    uploader: Uploader
    admission: Admission
    files: FileLifecycle
    times: LoadTiming
    pause: Callable[[], Awaitable[None]] | None
    _count: int = 1
    _idle_count: int = 0
    _sending: set[anyio.CancelScope] = field(factory=set)
    _idle: anyio.Event = field(factory=anyio.Event)
    _probing: anyio.Lock = field(factory=anyio.Lock)
    _probed_refusals: set[str] = field(factory=set)
    """Refusals after which a probe of the dataset succeeded, since the last accepted upload."""

    _refused_types: set[str] = field(factory=set)

    async def run(self, tasks: TaskGroup) -> None:
        """Send one file after another until cancelled.

        Starts the next worker when all have a file, up to the admission limit.
        """
        with anyio.CancelScope() as scope:
            while True:
                self._idle_count += 1
                file = await self.files.queue.get()
                self._idle_count -= 1
                if not self._idle_count and self._count < self.admission.max_limit:
                    self._count += 1
                    tasks.start_soon(self.run, tasks)
                await self._wait_for_turn()
                try:
                    if file.state is FileState.QUEUED:
                        await self._send(file, scope)
                    else:  # it ended while waiting
                        self.files.backlog.release(sent=True)
                finally:
                    self.admission.release()

    async def finish_sends(self) -> None:
        """After a cancellation of the load, wait up to `grace_period` for requests in flight."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(self.times.grace_period):
                    while self._sending:
                        self._idle = anyio.Event()
                        await self._idle.wait()
                for scope in self._sending:
                    scope.cancel()

    async def _wait_for_turn(self) -> None:
        """Wait until results are consumed, the backlog has space and an upload is admitted."""
        if self.pause is not None:
            await self.pause()
        await self.files.backlog.acquire()
        try:
            await self.admission.acquire()
        except BaseException:
            self.files.backlog.release(sent=True)
            raise

    async def _send(self, file: TrackedFile, scope: anyio.CancelScope) -> None:
        """Send a file, shielded from cancellation except by `finish_sends`."""
        scope.shield = True
        self._sending.add(scope)
        self.files.apply(file, FileEvent.STARTED)
        try:
            await self._create(file)
        finally:
            self._sending.discard(scope)
            if not self._sending:
                self._idle.set()
            scope.shield = False

    async def _create(self, file: TrackedFile) -> None:
        if file_extension(file.key) in self._refused_types:
            self.files.apply(file, FileEvent.FAILED, _refused_type(file))
            return
        self.files.ledger.resent += file.attempts > 0
        try:
            file.document = await self.uploader.send(file)
        except Exception as error:  # noqa: BLE001 -- other files continue
            await self._report_failure(file, error)
        else:
            file.attempts += 1
            file.error = None
            self._probed_refusals.clear()
            self.files.apply(file, FileEvent.ACCEPTED)

    async def _report_failure(self, file: TrackedFile, error: Exception) -> None:
        file.attempts += 1
        file.error = error if isinstance(error, KnowledgeError) else None
        apply = self.files.apply
        match error:
            case NameTakenError():
                apply(file, FileEvent.NAME_TAKEN, "another file already uses this document name")
            case SourceChangedError() if not file.changed:
                file.changed += 1
                apply(file, FileEvent.CHANGED)
            case SourceError():
                apply(file, FileEvent.UNREADABLE, error.summary)
            case JournalError():
                apply(file, FileEvent.NOT_RECORDED, "not sent: the journal could not be written")
                self.files.stop_for_error(error, abandon=False)
            case OutcomeUnknownError() | ProtocolError(page=False):
                file.lost += 1
                apply(file, FileEvent.LOST)
            case BadRequestError() if "being indexed" in error.message and self._may_wait(file):
                apply(file, FileEvent.DOCUMENT_BUSY)
            case QuotaExceededError():
                apply(file, FileEvent.REFUSED_FOR_ALL, error.summary)
                self.files.stop_for_error(error, abandon=False)
            case KnowledgeError() if is_transient(error):
                self._report_not_sent(file, error)
            case KnowledgeError():
                await self._report_refusal(file, error)
            case _:
                _log.error("Unexpected error while sending %r", file.key, exc_info=error)
                apply(file, FileEvent.FAILED, f"unexpected error: {error!r}")

    def _may_wait(self, file: TrackedFile) -> bool:
        """Return whether to wait for a busy document: no lock of Dify lasts longer."""
        now = loop_time()
        if file.busy_since is None:
            file.busy_since = now
        return now - file.busy_since <= self.times.dataset_lock_time

    def _report_not_sent(self, file: TrackedFile, error: KnowledgeError) -> None:
        """Report a failed upload that the server has not stored."""
        broke = isinstance(error, TransportError) and not isinstance(error, ConnectError)
        file.lost += broke
        if self._may_be_stored(file, error):
            self.files.apply(file, FileEvent.LOST)
            return
        if broke and file.lost >= self.times.max_sends:
            self.files.apply(file, FileEvent.REFUSED)
        else:
            self.files.apply(file, FileEvent.NOT_SENT)

    def _may_be_stored(self, file: TrackedFile, error: KnowledgeError) -> bool:
        """Return whether a second document could result if a file of a swap were sent again.

        Without a swap, the server replaces the document that the failed request may have made.
        """
        is_swap = self.files.swaps and file.planned.replaces is not None
        return is_swap and not isinstance(error, ConnectError | RateLimitedError)

    async def _report_refusal(self, file: TrackedFile, error: KnowledgeError) -> None:
        """Report a refused upload.

        After the first refusal of a kind, probe the dataset: the key may be invalid, the dataset
        deleted, or a proxy may block only this file.
        """
        if file.planned.found.unsupported_by_default and isinstance(error, BadRequestError):
            self._refused_types.add(file_extension(file.key))
            self.files.apply(file, FileEvent.FAILED, _refused_type(file))
            return
        signature = refusal_signature(error)
        async with self._probing:
            probe_error = None
            if not self.files.stopping.is_requested and signature not in self._probed_refusals:
                probe_error = await self.admission.breaker.probe()
            if probe_error is None:
                self._probed_refusals.add(signature)
        lost = is_from_other_server(error) and isinstance(error, ProtocolError)
        file.lost += lost
        refused = FileEvent.PAGE if lost else FileEvent.REFUSED
        if probe_error is None and isinstance(error, ConnectError):
            # The connection failed, for example for its certificate; the file was not refused.
            if self.files.stopping.is_requested:
                self.files.apply(file, FileEvent.REFUSED_FOR_ALL, error.summary)
            else:
                self.files.apply(file, FileEvent.NOT_SENT)
        elif probe_error is None:
            self.files.apply(file, refused)
        elif is_transient(probe_error):
            self.admission.breaker.trip(probe_error)
            self.files.apply(file, FileEvent.LOST if lost else FileEvent.NOT_SENT)
        else:
            self.files.apply(file, refused if lost else FileEvent.REFUSED_FOR_ALL, error.summary)
            self.files.stop_for_error(probe_error, abandon=True)


def _refused_type(file: TrackedFile) -> str:
    return f"the server does not accept files of type .{file_extension(file.key)}"
