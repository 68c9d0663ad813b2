"""Files that wait: for the document of a lost answer, for their document's indexing, for a time."""

from __future__ import annotations

import math

import anyio
from attrs import define, field, frozen

from dify_kb.config import Loading
from dify_kb.errors import KnowledgeError, OutcomeUnknownError, ServerError

from .indexing_activity import IndexingActivity
from .tracked_file import TrackedFile

CRASH = 500
LOOKS_AFTER_CRASH = 3
"""Looks after a 500, in about 15 s: what it left behind may be late in the lists of a replica."""


@frozen(kw_only=True)
class PendingUpload:
    """A file that waits until it is looked up at `due`.

    `lost`: a send of it may still land, until `until`. `created` documents had been added when it
    came: its document can be so far down the list as were added since.
    """

    file: TrackedFile
    since: float
    due: float
    until: float
    lost: bool = False
    timed_out: bool = False
    """Whether the send was not answered in time: Dify may hold the dataset's lock."""

    crashed: bool = False
    """Whether the send was answered with 500: its request has ended, and lands no more."""

    looks: int = 0
    status: str = ""
    created: int = 0


@define
class PendingUploads:
    """The files that wait, by key."""

    times: Loading
    activity: IndexingActivity
    _by_key: dict[str, PendingUpload] = field(factory=dict)
    _new: anyio.Event = field(factory=anyio.Event)

    def __len__(self) -> int:
        return len(self._by_key)

    def put_lost(self, file: TrackedFile) -> None:
        """Add a file whose create was not answered, or not by the API."""
        now, error = anyio.current_time(), file.error
        landing = self.times.quarantine if error is None else landing_time(error, self.times)
        self._add(file, due=now + self.times.settle[0], until=now + landing, lost=True)

    def put_busy(self, file: TrackedFile, *, lost: bool) -> None:
        """Add a file whose document is looked at before it is sent.

        One that an earlier run was sending when it was killed may land still (`lost`). For how long
        is counted from now: how long ago that was, a clock that was set since does not tell.
        """
        now = anyio.current_time()
        self._add(file, due=now, until=now + self.times.quarantine * lost, lost=lost)

    def put_later(self, file: TrackedFile, seconds: float) -> None:
        """Add a file that is sent again after some seconds, once its document is not indexed."""
        due = anyio.current_time() + seconds
        self._add(file, due=due, until=due)

    def put(self, pending: PendingUpload) -> None:
        """Add a file, or replace what is known of it."""
        self._by_key[pending.file.key] = pending
        self._new.set()

    def has(self, pending: PendingUpload) -> bool:
        """Return whether it still waits: the run may have stopped meanwhile."""
        return self._by_key.get(pending.file.key) is pending

    def remove(self, file: TrackedFile) -> None:
        """Remove a file, if it waits."""
        self._by_key.pop(file.key, None)

    def due(self) -> list[PendingUpload]:
        """Return those that are to be looked up now."""
        now = anyio.current_time()
        return [pending for pending in self._by_key.values() if pending.due <= now]

    async def wait(self) -> None:
        """Wait until one is due, or a new one was added."""
        due = min((pending.due for pending in self._by_key.values()), default=math.inf)
        self._new = anyio.Event()
        with anyio.move_on_at(due):
            await self._new.wait()

    def _add(self, file: TrackedFile, *, due: float, until: float, lost: bool = False) -> None:
        now = anyio.current_time()
        self.put(
            PendingUpload(
                file=file,
                since=now,
                due=due,
                until=until,
                lost=lost,
                timed_out=lost and isinstance(_cause(file.error), TimeoutError),
                crashed=lost and _has_crashed(file.error),
                created=self.activity.added.count,
            )
        )


def landing_time(error: KnowledgeError, times: Loading) -> float:
    """Return how long a create may still land after `error`, in seconds."""
    if _has_crashed(error):
        return sum(times.settle[:LOOKS_AFTER_CRASH])
    match _cause(error):
        case ServerError() | TimeoutError():
            return times.patience
        case _:
            return times.quarantine


def _has_crashed(error: KnowledgeError | None) -> bool:
    cause = _cause(error)
    return isinstance(cause, ServerError) and cause.status == CRASH


def _cause(error: KnowledgeError | None) -> BaseException | None:
    return error.__cause__ if isinstance(error, OutcomeUnknownError) else error
