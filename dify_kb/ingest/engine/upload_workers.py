"""Send queued files: each worker waits for its turn, sends one file, and reports what happened."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.config import Loading
from dify_kb.errors import (
    BadRequestError,
    ConnectError,
    JournalError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    QuotaExceededError,
    SourceChangedError,
    SourceError,
    TransportError,
)
from dify_kb.ingest.error_classes import is_page, is_passing, refusal_signature
from dify_kb.ingest.journal import NameTakenError
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.sources.document_names import extension_of
from dify_kb.transport.clock import loop_time

from .lifecycle import FileLifecycle
from .states import FileEvent, FileState
from .upload import Uploader

if TYPE_CHECKING:
    from .tracked_file import TrackedFile

_log = logging.getLogger(__name__)


@define(kw_only=True)
class UploadWorkers:
    """Sends what is queued, as many at once as are admitted.

    Args:
        pause: waits while results are consumed more slowly than they arrive.
    """

    uploader: Uploader
    admission: Admission
    files: FileLifecycle
    times: Loading
    pause: Callable[[], Awaitable[None]] | None
    _sending: set[anyio.CancelScope] = field(factory=set)
    _idle: anyio.Event = field(factory=anyio.Event)
    _probing: anyio.Lock = field(factory=anyio.Lock)
    _probed: set[str] = field(factory=set)
    """The refusals after which the dataset was found to be well, since the last success."""

    _refused_types: set[str] = field(factory=set)

    async def work(self) -> None:
        """Send one file after the other, until cancelled."""
        with anyio.CancelScope() as scope:
            while True:
                file = await self.files.queue.get()
                await self._wait_for_turn()
                try:
                    if file.state is FileState.QUEUED:
                        await self._send(file, scope)
                    else:  # it ended while it waited
                        self.files.backlog.leave(sent=True)
                finally:
                    self.admission.leave()

    async def finish_sends(self) -> None:
        """When the load is cancelled, let requests that are under way finish, for a while."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(self.times.grace):
                    while self._sending:
                        self._idle = anyio.Event()
                        await self._idle.wait()
                for scope in self._sending:
                    scope.cancel()

    async def _wait_for_turn(self) -> None:
        """Wait until results are consumed, the backlog has room and an upload is admitted."""
        if self.pause is not None:
            await self.pause()
        await self.files.backlog.enter()
        try:
            await self.admission.enter()
        except BaseException:
            self.files.backlog.leave(sent=True)
            raise

    async def _send(self, file: TrackedFile, scope: anyio.CancelScope) -> None:
        """Send a file, which only `finish_sends` may cancel."""
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
        if extension_of(file.key) in self._refused_types:
            self.files.apply(file, FileEvent.FAILED, _refused_type(file))
            return
        self.files.ledger.resent += file.attempts > 0
        try:
            file.document = await self.uploader.send(file)
        except Exception as error:  # noqa: BLE001 -- the edge of one file: the others go on
            await self._report_failure(file, error)
        else:
            file.attempts += 1
            file.error = None
            self._probed.clear()
            self.files.apply(file, FileEvent.ACCEPTED)

    async def _report_failure(self, file: TrackedFile, error: Exception) -> None:
        file.attempts += 1
        file.error = error if isinstance(error, KnowledgeError) else None
        apply = self.files.apply
        match error:
            case NameTakenError():
                apply(file, FileEvent.NAME_TAKEN, "the document name is used by another file")
            case SourceChangedError() if not file.changed:
                file.changed += 1
                apply(file, FileEvent.CHANGED)
            case SourceError():
                apply(file, FileEvent.UNREADABLE, error.summary)
            case JournalError():
                apply(file, FileEvent.NOT_RECORDED, "not sent: the journal could not be written")
                self.files.stop_for(error, abandon=False)
            case OutcomeUnknownError() | ProtocolError(page=False):
                file.lost += 1
                apply(file, FileEvent.LOST)
            case BadRequestError() if "being indexed" in error.message and self._may_wait(file):
                apply(file, FileEvent.DOCUMENT_BUSY)
            case QuotaExceededError():
                apply(file, FileEvent.REFUSED_FOR_ALL, error.summary)
                self.files.stop_for(error, abandon=False)
            case KnowledgeError() if is_passing(error):
                self._report_not_sent(file, error)
            case KnowledgeError():
                await self._report_refusal(file, error)
            case _:
                _log.error("Unexpected error for %r", file.key, exc_info=error)
                apply(file, FileEvent.FAILED, f"unexpected error: {error!r}")

    def _may_wait(self, file: TrackedFile) -> bool:
        """Return whether a busy document is waited for: no lock of Dify lasts longer."""
        now = loop_time()
        if file.busy_since is None:
            file.busy_since = now
        return now - file.busy_since <= self.times.dataset_lock

    def _report_not_sent(self, file: TrackedFile, error: KnowledgeError) -> None:
        """Report a failure after which the server does not have the file."""
        broke = isinstance(error, TransportError) and not isinstance(error, ConnectError)
        file.lost += broke
        if broke and file.lost >= self.times.sends:
            self.files.apply(file, FileEvent.REFUSED)
        else:
            self.files.apply(file, FileEvent.NOT_SENT)

    async def _report_refusal(self, file: TrackedFile, error: KnowledgeError) -> None:
        """Report a refusal. The first of its kind has the dataset probed before it counts: the key
        may be bad, the dataset deleted, or a proxy may dislike this one file.
        """
        if file.planned.found.unsupported_by_default and isinstance(error, BadRequestError):
            self._refused_types.add(extension_of(file.key))
            self.files.apply(file, FileEvent.FAILED, _refused_type(file))
            return
        signature = refusal_signature(error)
        async with self._probing:
            met = None
            if not self.files.stopping.requested and signature not in self._probed:
                met = await self.admission.breaker.probe()
            if met is None:
                self._probed.add(signature)
        lost = is_page(error) and isinstance(error, ProtocolError)
        file.lost += lost
        refused = FileEvent.PAGE if lost else FileEvent.REFUSED
        if met is None:
            self.files.apply(file, refused)
        elif is_passing(met):
            self.admission.breaker.trip(met)
            self.files.apply(file, FileEvent.LOST if lost else FileEvent.NOT_SENT)
        else:
            self.files.apply(file, refused if lost else FileEvent.REFUSED_FOR_ALL, error.summary)
            self.files.stop_for(met, abandon=True)


def _refused_type(file: TrackedFile) -> str:
    return f"the server refuses files of type .{extension_of(file.key)}"
