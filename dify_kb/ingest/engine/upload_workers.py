"""The workers that send: each waits for its turn, sends one file, and tells what became of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import anyio
from attrs import define, evolve, field

from dify_kb.config import Loading
from dify_kb.errors import (
    BadRequestError,
    ConnectError,
    JournalError,
    KnowledgeError,
    OutcomeUnknownError,
    ProtocolError,
    SourceError,
    TransportError,
)
from dify_kb.ingest.journal import NameTakenError, State
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.pacing.backlog import Backlog
from dify_kb.ingest.report import Tally
from dify_kb.ingest.stops import stop_reason
from dify_kb.transport.retry import throttles

from .gate import Gate, passing
from .upload import UploadedDocument, Uploader
from .upload_queue import UploadQueue

if TYPE_CHECKING:
    from dify_kb.ingest.planning.plan import Planned

_log = logging.getLogger(__name__)


class Course(Protocol):
    """What a run does with what became of a file."""

    @property
    def halted(self) -> bool:
        """Whether nothing more is to be sent."""
        ...

    def accepted(self, sent: UploadedDocument) -> None:
        """Take a document that the server has."""
        ...

    def lost(self, planned: Planned, error: KnowledgeError) -> None:
        """Take a file whose create was not answered, or not by the API."""
        ...

    def unknown(self, planned: Planned, reason: str) -> None:
        """Take a file that the server may have, and that is to be looked for in the next run."""
        ...

    def busy(self, planned: Planned) -> None:
        """Take a file whose document is being indexed."""
        ...

    def fail(self, planned: Planned, reason: str, state: State | None) -> None:
        """Take a file that failed, and what is to be remembered of it."""
        ...

    def pend(self, planned: Planned, reason: str) -> None:
        """Take a file that the run stopped before."""
        ...

    def fail_run(self, error: KnowledgeError) -> None:
        """Stop for an error that concerns every file."""
        ...


@define(kw_only=True)
class Sending:
    """Sends what stands in the line, as many at once as the admission lets in."""

    course: Course
    uploader: Uploader
    line: UploadQueue
    admission: Admission
    gate: Gate
    backlog: Backlog
    times: Loading
    tally: Tally
    pause: Callable[[], Awaitable[None]] | None
    _waits: set[anyio.CancelScope] = field(factory=set)
    _sends: set[anyio.CancelScope] = field(factory=set)
    _idle: anyio.Event = field(factory=anyio.Event)
    _refused_since: float | None = None

    async def work(self) -> None:
        """Send until the line is closed."""
        stopped = True
        while stopped:
            with anyio.CancelScope() as scope:
                await self._work(scope)
            stopped = scope.cancelled_caught and self.course.halted

    async def drain(self) -> None:
        """When the load is cancelled, let requests that are under way finish, for a while."""
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                with anyio.move_on_after(self.times.grace):
                    while self._sends:
                        self._idle = anyio.Event()
                        await self._idle.wait()
                for scope in self._sends:
                    scope.cancel()

    def halt(self) -> None:
        """Let nobody wait for a turn any more."""
        for scope in self._waits:
            scope.cancel()

    async def _work(self, scope: anyio.CancelScope) -> None:
        """Send until the line is closed, or the run stops while a file waits for its turn."""
        while (planned := await self.line.next()) is not None:
            if self.course.halted:
                self._pend(planned)
                continue
            self._waits.add(scope)
            try:
                await self._proceed()
            except anyio.get_cancelled_exc_class():
                if scope.cancel_called:
                    self._pend(planned)
                raise
            finally:
                self._waits.discard(scope)
            if scope.cancel_called:  # its turn came just when the run stopped
                self.backlog.turn_back()
                self.admission.leave()
                self._pend(planned)
            else:
                await self._send(planned, scope)

    async def _proceed(self) -> None:
        if self.pause is not None:
            await self.pause()
        await self.backlog.enter()
        try:
            await self.gate.passed()
            await self.admission.enter()
        except BaseException:
            self.backlog.turn_back()
            raise

    async def _send(self, planned: Planned, scope: anyio.CancelScope) -> None:
        """Send a file, which nothing but `drain` cancels."""
        scope.shield = True
        self._sends.add(scope)
        try:
            await self._create(planned)
        finally:
            self._sends.discard(scope)
            if not self._sends:
                self._idle.set()
            self.admission.leave()
            scope.shield = False

    def _pend(self, planned: Planned) -> None:
        self.course.pend(planned, "the run stopped before it")

    async def _create(self, planned: Planned) -> None:
        self.tally.retries += planned.attempts > 0
        try:
            sent = await self.uploader.send(planned)
        except Exception as error:  # noqa: BLE001 -- the edge of one file: the others go on
            self.backlog.turn_back()
            self._judge(evolve(planned, attempts=planned.attempts + 1), error)
        else:
            self._refused_since = None
            self.course.accepted(sent)

    def _judge(self, planned: Planned, error: Exception) -> None:
        """Tell the run of a send that failed."""
        match error:
            case NameTakenError():
                self.course.fail(planned, "another file's document has its name", None)
            case SourceError():
                self.course.fail(planned, error.summary, State.WAITING)
            case JournalError():
                self.course.unknown(planned, "it could not be noted in the journal")
                self.course.fail_run(error)
            case OutcomeUnknownError() | ProtocolError():
                self._hold(error)
                self.course.lost(evolve(planned, broken=planned.broken + 1), error)
            case BadRequestError() if "being indexed" in error.message:
                self.course.busy(planned)
            case KnowledgeError():
                self._refused(planned, error)
            case _:
                _log.error("unexpected, at %r", planned.found.key, exc_info=error)
                self.course.fail(planned, f"unexpected: {error!r}", State.FAILED)

    def _refused(self, planned: Planned, error: KnowledgeError) -> None:
        """Judge an error after which the server does not have the file."""
        breaks = isinstance(error, TransportError) and not isinstance(error, ConnectError)
        planned = evolve(planned, broken=planned.broken + breaks)
        if breaks and planned.broken >= self.times.sends:
            self.course.fail(planned, error.summary, State.FAILED)
        elif passing(error):
            self._hold(error)
            if self.course.halted:
                self._pend(planned)
            else:
                self.line.again(planned)
        elif stop_reason(error) is None:
            self.course.fail(planned, error.summary, State.FAILED)
        else:
            self.course.pend(planned, "the run stopped at it")
            self.course.fail_run(error)

    def _hold(self, error: KnowledgeError) -> None:
        """Close the gate once too much has failed, and end a run that is only refused."""
        if self.admission.broken:
            self.gate.close(error)
        if not throttles(error):
            return
        now = anyio.current_time()
        self._refused_since = self._refused_since or now
        if now - self._refused_since > self.times.outage:
            self.course.fail_run(error)
