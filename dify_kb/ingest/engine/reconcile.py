"""Files that have to wait: for an answer that was lost, for their document, or for a time.

A file whose create was not answered is looked for at growing intervals. It is adopted when the
server has it, and sent again only once it can no longer land: two runs of one document at the
same time leave the chunks of both (measured on 1.4.3 and 1.12.1).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping

import anyio
from attrs import define, evolve, field, frozen

from dify_kb.config import Loading
from dify_kb.errors import KnowledgeError, OutcomeUnknownError, ServerError
from dify_kb.ingest.journal import State
from dify_kb.ingest.planning.document_lookup import FEW, DocumentLookup
from dify_kb.ingest.planning.plan import DISABLED, Do, Planned
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.models import Document

from .watch_indexing import IndexingWatcher

CRASH = 500

LOOKS = 3
"""Looks after a 500, in about 15 s: what it left behind may be late in the lists of a replica."""


class Verdict(enum.Enum):
    """What a look tells of a file."""

    ADOPT = enum.auto()
    SEND = enum.auto()
    WAIT = enum.auto()
    REFUSE = enum.auto()
    LEAVE = enum.auto()


@frozen(kw_only=True)
class PendingUpload:
    """A file that waits.

    `lost` tells that a send of it may still land, until `until`; `due` is the next look. `created`
    documents had been added when it came: so far down the list it can be is what came since.
    """

    planned: Planned
    since: float
    due: float
    looks: int = 0
    status: str = ""
    lost: bool = False
    until: float = 0.0
    reason: str = ""
    created: int = 0


def judge(
    held: PendingUpload, document: Document | None, now: float, *, replaces: bool = True
) -> Verdict:
    """Decide about a file by the document of its name, if there is one.

    | document | send may still land | else |
    |---|---|---|
    | none, or the one from before, ended | wait | send |
    | the one from before, being indexed | wait | wait |
    | another file of the same size, by the API | adopt | as the one from before, or leave |
    | another file | wait | as the one from before, or leave |
    | disabled, and not to be adopted | refuse | refuse |

    Size and way are all that a list tells of a file's content, so what somebody else sent by the
    API meanwhile, of the same size, is adopted too.

    Args:
        replaces: a document of somebody else is replaced, and not left as it is.
    """
    file = document.upload_file if document else None
    other = document is not None and (file is None or file.id != held.planned.before)
    if document is not None and file is not None and held.lost and other:
        same = file.size in {None, held.planned.found.size}
        if same and document.created_from == "api":
            return Verdict.ADOPT
    if other and not replaces:
        return Verdict.WAIT if now < held.until else Verdict.LEAVE
    if document is not None and not document.enabled:
        return Verdict.REFUSE
    if document is not None and not document.indexing_status.final:
        return Verdict.WAIT
    return Verdict.WAIT if now < held.until else Verdict.SEND


def landing(error: KnowledgeError, times: Loading) -> float:
    """Tell how long a create may still land after `error`, in seconds."""
    match error.__cause__ if isinstance(error, OutcomeUnknownError) else error:
        case ServerError(status=status) if status == CRASH:
            return sum(times.settle[:LOOKS])  # its request has ended
        case ServerError() | TimeoutError():
            return times.patience
        case _:
            return times.quarantine


@define
class Reconciler:
    """Holds files and looks for their documents, many at a time."""

    _lookup: DocumentLookup
    _times: Loading
    _send: Callable[[Planned], None]
    """Takes a file that is to be sent, again or for the first time."""

    _adopt: Callable[[Planned, Document], Awaitable[None]]
    """Takes a file that the server turned out to have."""

    _refuse: Callable[[Planned, str], None]
    _failing: Callable[[KnowledgeError], Awaitable[object]]
    """Takes an error of a look, and returns when the server is back."""

    _patience: float
    """Seconds without any progress after which a file gives up on the document of its name."""

    _watcher: IndexingWatcher
    """Knows when something last moved, and how many documents were added."""

    _leave: Callable[[Planned, Document], None] | None = None
    """Takes a file whose name somebody else's document has; None where that is replaced."""

    _held: dict[str, PendingUpload] = field(factory=dict)
    _new: anyio.Event = field(factory=anyio.Event)

    def __len__(self) -> int:
        return len(self._held)

    def lost(self, planned: Planned, error: KnowledgeError) -> None:
        """Hold a file whose create was not answered, or not by the API."""
        now = anyio.current_time()
        until = now + landing(error, self._times)
        self._hold(planned, lost=True, until=until, reason=error.summary)

    def look(self, planned: Planned) -> None:
        """Hold a file whose document is to be looked at before it is sent.

        One that an earlier run was sending when it was killed may land still. For how long is
        counted from now: how long ago that was, a clock that was set since does not tell.
        """
        lost = planned.row is not None and planned.row.state is State.SENDING
        left = self._times.quarantine if lost else 0.0
        self._hold(planned, lost=lost, until=anyio.current_time() + left, at_once=True)

    def later(self, planned: Planned, seconds: float) -> None:
        """Hold a file for a time, then look whether its document has ended."""
        now = anyio.current_time()
        self._hold(planned, lost=False, until=now + seconds, due=now + seconds)

    def leave(self) -> Iterable[PendingUpload]:
        """Let everybody go, unsettled."""
        held, self._held = self._held, {}
        return held.values()

    async def run(self) -> None:
        """Look for those that are due, until cancelled."""
        while True:
            await self._pause()
            now = anyio.current_time()
            due = [held for held in self._held.values() if held.due <= now]
            if not due:
                continue
            try:
                await self._settle(due)
            except KnowledgeError as error:
                self._postpone(due)
                await self._failing(error)

    def _hold(
        self,
        planned: Planned,
        *,
        lost: bool,
        until: float,
        reason: str = "",
        due: float | None = None,
        at_once: bool = False,
    ) -> None:
        now = anyio.current_time()
        first = 0.0 if at_once else self._times.settle[0]
        self._held[planned.found.key] = PendingUpload(
            planned=planned,
            since=now,
            due=now + first if due is None else due,
            lost=lost,
            until=until,
            reason=reason,
            created=self._watcher.created,
        )
        self._new.set()

    async def _pause(self) -> None:
        due = min((held.due for held in self._held.values()), default=math.inf)
        self._new = anyio.Event()
        with anyio.move_on_at(due):
            await self._new.wait()

    async def _settle(self, due: list[PendingUpload]) -> None:
        found = await self._newest(due)
        for held in due:
            name = held.planned.name
            document = found.get(name) or await self._lookup.named(name)
            if self._held.get(held.planned.found.key) is held:  # the run may have stopped
                await self._act(held, document)

    async def _newest(self, due: list[PendingUpload]) -> Mapping[str, Document]:
        """Look for many new documents at once; the list is in the order of their creation."""
        names = {held.planned.name for held in due if held.planned.replaces is None}
        if len(names) <= FEW:
            return {}
        since = min(held.created for held in due if held.planned.replaces is None)
        depth = self._watcher.created - since + len(self._held)
        return await self._lookup.newest(names, depth)

    async def _act(self, held: PendingUpload, document: Document | None) -> None:
        now = anyio.current_time()
        verdict = judge(held, document, now, replaces=self._leave is None)
        if verdict is Verdict.WAIT:
            self._wait(held, document, now)
            return
        self._held.pop(held.planned.found.key)
        remote = RemoteDocument.of(document) if document else None
        if verdict is Verdict.ADOPT and document is not None:
            await self._adopted(held, document)
        elif self._leave is not None and verdict is Verdict.LEAVE and document is not None:
            self._leave(held.planned, document)
        elif verdict is Verdict.REFUSE:
            self._refuse(held.planned, DISABLED)
        elif held.lost and held.planned.broken >= self._times.sends:
            times = held.planned.broken
            self._refuse(held.planned, f"sent {times} times, and it is not there: {held.reason}")
        else:
            self._send(evolve(held.planned, do=Do.SEND, replaces=remote, row=None))

    async def _adopted(self, held: PendingUpload, document: Document) -> None:
        try:
            await self._adopt(held.planned, document)
        except KnowledgeError:  # it could not be noted: whoever leaves takes it along
            self._held[held.planned.found.key] = held
            raise

    def _wait(self, held: PendingUpload, document: Document | None, now: float) -> None:
        status = document.indexing_status if document else ""
        if status != held.status:
            held = evolve(held, status=status, since=now)
        if not held.lost and now - max(held.since, self._watcher.moved_at) > self._patience:
            self._held.pop(held.planned.found.key)
            self._refuse(held.planned, f"its document stays {status}, and nothing else is indexed")
            return
        self._held[held.planned.found.key] = held
        self._postpone([held])

    def _postpone(self, due: list[PendingUpload]) -> None:
        settle, now = self._times.settle, anyio.current_time()
        for held in due:
            if held.planned.found.key not in self._held:
                continue
            looks = held.looks + 1
            wait = settle[min(looks, len(settle) - 1)]
            if now < held.until:
                wait = min(wait, max(held.until - now, settle[0]))
            self._held[held.planned.found.key] = evolve(held, due=now + wait, looks=looks)
