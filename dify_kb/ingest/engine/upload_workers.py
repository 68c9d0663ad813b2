"""Upload queued files: each worker waits for admission, sends a file and reports the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

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
    Journal,
    JournalBusyError,
    JournalRow,
    JournalState,
    NameTakenError,
)
from dify_kb.ingest.metadata.collect_metadata import ResolvedMetadata
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.sources.document_names import file_extension
from dify_kb.ingest.sources.file_content import (
    FileContent,
    is_small,
    read_content,
    require_unchanged,
)
from dify_kb.models import UNSET, Dataset, DocForm, ProcessRule, Unset
from dify_kb.resources import Documents
from dify_kb.transport.clock import loop_time
from dify_kb.transport.thread_batch import run_in_batch, run_in_thread

from .file_lifecycle import FileLifecycle
from .file_states import FileEvent, FileState
from .ledger import DeletedCharactersWarning
from .tracked_file import UploadedDocument, latest_server_time

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from dify_kb.ingest.planning.file_plan import PlannedFile
    from dify_kb.models import CreatedDocument

    from .tracked_file import TrackedFile


@define(kw_only=True)
class Uploader:
    """Uploader of planned files, shared by the workers.

    The process rule is sent with the first document only: the server stores another copy for
    each create request that contains it (dataset_service, 1.12.1).
    """

    documents: Documents
    journal: Journal
    dataset: Dataset
    process_rule: ProcessRule | Unset
    doc_form: DocForm | Unset
    fingerprint: str
    swaps: bool
    protects_others: bool
    """Whether a document that another client made meanwhile is not replaced by a new file."""

    deleted_characters: DeletedCharactersWarning
    _first_upload: anyio.Lock = field(factory=anyio.Lock)
    _rule_sent: anyio.Event = field(factory=anyio.Event)

    def __attrs_post_init__(self) -> None:
        if self.process_rule is UNSET:
            self._rule_sent.set()

    async def send(self, file: TrackedFile) -> UploadedDocument:
        """Create the document of a file.

        Raises:
            SourceChangedError: the file changed while it was read or sent.
            SourceError: the file could not be read.
            NameTakenError: another key of the journal has the same document name.
            JournalError: the intent could not be recorded, so nothing was sent.
            OutcomeUnknownError: the server may have stored the document.
            KnowledgeError: the connection or the server failed, or the server refused the file.
        """
        content, metadata = await self._read_and_record(file)
        try:
            if content.file is not file.planned.found:
                file.planned = evolve(file.planned, found=content.file)
            if metadata is not None:
                file.planned = evolve(
                    file.planned,
                    metadata=metadata.values,
                    labels=metadata.labels,
                    warnings=metadata.warnings,
                )
            file.content, file.is_marked = content.digest, False
            file.token = None if content.file.source is None else content.token
            if not file.attempts:
                self.deleted_characters.add(file.key, content.deleted_characters)
            started = loop_time()
            created = await self._create(file, content)
            if not isinstance(content.data, bytes):
                await run_in_thread(require_unchanged, content)
        finally:
            content.close()
        document, now = created.document, loop_time()
        stored = document.upload_file
        replaced = file.planned.replaces is not None and not self.swaps
        return UploadedDocument(
            id=document.id,
            batch=created.batch,
            upload_file_id=stored.id if stored else None,
            seconds=now - started,
            accepted_at=now,
            queued_at=latest_server_time(time.time()) if replaced else document.created_at,
        )

    async def _read_and_record(
        self, file: TrackedFile
    ) -> tuple[FileContent, ResolvedMetadata | None]:
        """Read a file and record the intent to send it: in one thread call for a small file."""
        found, read = file.planned.found, list[tuple[FileContent, ResolvedMetadata | None]]()

        def row() -> JournalRow:
            read.append(_read_with_metadata(file.planned))
            return self._row(file, *read[0])

        if is_small(found):
            try:
                await self.journal.record_intent(row)
            except JournalBusyError:  # on slow storage, files are read concurrently
                pass
            else:
                return read[0]
        run = run_in_batch if found.source is None else run_in_thread
        content, metadata = await run(_read_with_metadata, file.planned)
        try:
            await self.journal.record_intent(self._row(file, content, metadata))
        except BaseException:
            content.close()
            raise
        return content, metadata

    def _row(
        self, file: TrackedFile, content: FileContent, metadata: ResolvedMetadata | None
    ) -> JournalRow:
        found, replaces = content.file, file.planned.replaces
        return JournalRow(
            key=found.key,
            name=file.planned.name,
            size=found.size,
            token=content.token,
            content=content.digest,
            rule=self.fingerprint,
            labels="" if metadata is None else str(metadata.labels.without_values()),
            state=JournalState.SENDING,
            attempts=file.attempts + 1,
            sent_at=time.time(),
            previous=replaces.upload_file_id if replaces else None,
            document_id=None,
            batch=None,
            upload_file_id=None,
            reason=None,
        )

    async def _create(self, file: TrackedFile, content: FileContent) -> CreatedDocument:
        if not self._rule_sent.is_set():
            async with self._first_upload:
                if not self._rule_sent.is_set():
                    created = await self._send(file, content, self.process_rule)
                    self._rule_sent.set()
                    return created
        return await self._send(file, content, UNSET)

    async def _send(
        self, file: TrackedFile, content: FileContent, rule: ProcessRule | Unset
    ) -> CreatedDocument:
        return await self.documents.create_by_file(
            self.dataset.id,
            content.data,
            name=file.planned.name,
            indexing_technique=self.dataset.indexing_technique or UNSET,
            doc_form=self.doc_form or self.dataset.doc_form or UNSET,
            process_rule=rule,
            duplicate=self._replaces_same_name(file),
        )

    def _replaces_same_name(self, file: TrackedFile) -> bool:
        """Return whether the server replaces a document with the name of the file.

        If a new file is sent again, that may be the document of an earlier attempt.
        """
        if file.planned.replaces is not None:
            return not self.swaps
        return file.attempts > 0 or not self.protects_others


def _read_with_metadata(planned: PlannedFile) -> tuple[FileContent, ResolvedMetadata | None]:
    """Return the content of a file, and its metadata unless it is complete. Blocking.

    Raises:
        SourceError: the file cannot be read.
    """
    content = read_content(planned.found)
    if planned.unread is None:
        return content, None
    try:
        metadata = planned.unread.resolve(content)
        removed = metadata.labels.removed
        return content.without_head(removed) if removed else content, metadata
    except BaseException:
        content.close()
        raise


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
