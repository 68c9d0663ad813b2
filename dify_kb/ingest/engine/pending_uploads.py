"""Files that wait for a lookup: after a lost send, during an indexing run, or for a delay."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable

import anyio
from attrs import define, field, frozen

from dify_kb.config import LoadTiming
from dify_kb.errors import KnowledgeError, OutcomeUnknownError, ServerError
from dify_kb.transport.clock import loop_time

from .followed_documents import IndexingActivity
from .tracked_file import TrackedFile

INTERNAL_ERROR = 500
LOOKUPS_AFTER_CRASH = 3
"""Number of lookups after a 500, within about 15 s: the lists of a replica may be late."""

MAX_DUE = 500
"""Maximum number of lookups in one round: 10 s at 20 ms each."""


@frozen(kw_only=True)
class PendingUpload:
    """A file that is looked up at `due`.

    `lost`: a send may still be carried out, until `until`. `created` is the number of documents
    added before this file; later documents precede its document in the list.
    """

    file: TrackedFile
    since: float
    due: float
    until: float
    lost: bool = False
    timed_out: bool = False
    """Whether the send timed out: Dify may hold the dataset lock."""

    crashed: bool = False
    """Whether the response to the send was 500: the request has ended."""

    lookups: int = 0
    status: str = ""
    status_since: float = 0.0
    """Time when the status of the document with its name last changed."""

    created: int = 0


@define
class PendingUploads:
    """Files that wait for a lookup, by key. Lost files are looked up first."""

    times: LoadTiming
    activity: IndexingActivity
    clock: Callable[[], float] = time.time
    _by_key: dict[str, PendingUpload] = field(factory=dict)
    _lost: list[tuple[float, int, PendingUpload]] = field(factory=list)
    _other: list[tuple[float, int, PendingUpload]] = field(factory=list)
    """Heaps by `due`. Removed and replaced entries remain until they are due."""

    _numbers: itertools.count[int] = field(factory=itertools.count)
    _new: anyio.Event = field(factory=anyio.Event)

    def __len__(self) -> int:
        return len(self._by_key)

    def put_lost(self, file: TrackedFile) -> None:
        """Add a file whose create got no response, or a response that is not from the API."""
        now, error = loop_time(), file.error
        landing = (
            self.times.late_create_after_disconnect
            if error is None
            else max_seconds_until_stored(error, self.times)
        )
        self._add(file, due=now + self.times.lookup_intervals[0], until=now + landing, lost=True)

    def put_busy(self, file: TrackedFile, *, lost: bool) -> None:
        """Add a file whose document is looked up before the file is sent.

        Args:
            lost: an earlier run was killed while sending the file. The send may still be carried
                out for `late_create_after_timeout` seconds; a change of the system clock shortens
                that to no less than `late_create_after_disconnect`.
        """
        now = loop_time()
        until = now
        if lost and file.planned.row is not None:
            expiry = file.planned.row.sent_at + self.times.late_create_after_timeout
            remaining = expiry - self.clock()
            until += max(
                self.times.late_create_after_disconnect,
                min(remaining, self.times.late_create_after_timeout),
            )
        self._add(file, due=now, until=until, lost=lost)

    def put_later(self, file: TrackedFile, seconds: float) -> None:
        """Add a file that is sent after `seconds`, once its document is not being indexed."""
        due = loop_time() + seconds
        self._add(file, due=due, until=due)

    def put(self, pending: PendingUpload) -> None:
        """Add a file, or replace its entry."""
        self._by_key[pending.file.key] = pending
        heap = self._lost if pending.lost else self._other
        heapq.heappush(heap, (pending.due, next(self._numbers), pending))
        self._new.set()

    def has(self, pending: PendingUpload) -> bool:
        """Return whether the entry was neither removed nor replaced."""
        return self._by_key.get(pending.file.key) is pending

    def remove(self, file: TrackedFile) -> None:
        """Remove a file, if it is present."""
        self._by_key.pop(file.key, None)

    def pop_due(self) -> list[PendingUpload]:
        """Return up to `MAX_DUE` due entries. The caller must put or remove each of them."""
        now, due = loop_time(), list[PendingUpload]()
        for heap in (self._lost, self._other):
            while heap and heap[0][0] <= now and len(due) < MAX_DUE:
                pending = heapq.heappop(heap)[2]
                if self.has(pending):
                    due.append(pending)
        return due

    async def wait(self) -> None:
        """Wait until an entry is due or a new one is added."""
        due = min((heap[0][0] for heap in (self._lost, self._other) if heap), default=math.inf)
        self._new = anyio.Event()
        with anyio.move_on_at(due):
            await self._new.wait()

    def _add(self, file: TrackedFile, *, due: float, until: float, lost: bool = False) -> None:
        now = loop_time()
        self.put(
            PendingUpload(
                file=file,
                since=now,
                due=due,
                until=until,
                lost=lost,
                timed_out=lost and isinstance(_cause(file.error), TimeoutError),
                crashed=lost and _has_crashed(file.error),
                status_since=now,
                created=self.activity.added.count,
            )
        )


def max_seconds_until_stored(error: KnowledgeError, times: LoadTiming) -> float:
    """Return the seconds after `error` during which a create may still be carried out."""
    if _has_crashed(error):
        return sum(times.lookup_intervals[:LOOKUPS_AFTER_CRASH])
    match _cause(error):
        case ServerError() | TimeoutError():
            return times.late_create_after_timeout
        case _:
            return times.late_create_after_disconnect


def _has_crashed(error: KnowledgeError | None) -> bool:
    cause = _cause(error)
    return isinstance(cause, ServerError) and cause.status == INTERNAL_ERROR


def _cause(error: KnowledgeError | None) -> BaseException | None:
    return error.__cause__ if isinstance(error, OutcomeUnknownError) else error
