"""The results of files, and the report of a load."""

from __future__ import annotations

import enum
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
from attrs import field, frozen

from dify_kb.errors import LoadError


class Outcome(enum.StrEnum):
    """The outcome of a file. Every file found has exactly one."""

    ADDED = "added"
    """Accepted as a new document and, unless `wait="accepted"`, indexed."""

    UPDATED = "updated"
    """Accepted as a new version of an existing document and, as with `ADDED`, indexed."""

    UNCHANGED = "unchanged"
    """Loaded by an earlier run; not sent."""

    SKIPPED = "skipped"
    """Not sent, because a rule excludes the file or keeps the existing document."""

    FAILED = "failed"
    """Rejected, unreadable, or indexed without searchable content."""

    STALLED = "stalled"
    """Accepted, but without indexing progress for `stall_after` seconds."""

    UNKNOWN = "unknown"
    """Sent, but the response was lost and the document has not been found."""

    PENDING = "pending"
    """Not reached before the run stopped."""

    __hash__ = str.__hash__  # ten times as fast as the hash of an enum


GOOD_OUTCOMES = frozenset({Outcome.ADDED, Outcome.UPDATED, Outcome.UNCHANGED, Outcome.SKIPPED})


class StopReason(enum.StrEnum):
    """The reason why a run ended early."""

    RATE_LIMIT = "rate_limit"
    PLAN_LIMIT = "plan_limit"
    UNAUTHORIZED = "unauthorized"
    OUTAGE = "outage"
    NOT_INDEXING = "not_indexing"
    MISCONFIGURED = "misconfigured"
    MAX_FAILURES = "max_failures"
    DEADLINE = "deadline"
    JOURNAL = "journal"
    DATASET_DELETED = "dataset_deleted"
    SOURCE_MISSING = "source_missing"
    """The source of a sync, or a file that it must contain, does not exist."""

    SOURCE_EMPTY = "source_empty"
    """The source of a sync contains no file, but its dataset has documents of it."""

    NO_FILES = "no_files"
    """The folders contain no file that the patterns include: probably a wrong path or pattern."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command line for a run that stopped."""
        return _EXIT_CODES[self]


_EXIT_CODES: Mapping[StopReason, int] = {
    StopReason.RATE_LIMIT: 5,
    StopReason.PLAN_LIMIT: 4,
    StopReason.UNAUTHORIZED: 4,
    StopReason.OUTAGE: 5,
    StopReason.NOT_INDEXING: 5,
    StopReason.MISCONFIGURED: 6,
    StopReason.MAX_FAILURES: 7,
    StopReason.DEADLINE: 5,
    StopReason.JOURNAL: 8,
    # As with a revoked permission, a person has to act on the server first.
    StopReason.DATASET_DELETED: 4,
    StopReason.SOURCE_MISSING: 7,
    StopReason.SOURCE_EMPTY: 7,
    StopReason.NO_FILES: 1,
}


@frozen(kw_only=True)
class ItemResult:
    """The result of one file.

    `name` is the name of its document. `timings` are in seconds: `upload` covers the create
    request with its retries, `index` the time from its response until the end of indexing was seen.
    """

    key: str
    outcome: Outcome
    reason: str | None = None
    name: str | None = None
    document_id: str | None = None
    batch: str | None = None
    size: int = 0
    attempts: int = 0
    reconciled: bool = False
    warnings: Sequence[str] = ()
    error: str | None = None
    timings: Mapping[str, float] = field(factory=dict)


def refused_result(key: str, outcome: Outcome, reason: str, *, size: int = 0) -> ItemResult:
    """Return the result of a file that was not sent."""
    return ItemResult(key=key, outcome=outcome, reason=reason, size=size)


def _no_failures() -> Iterator[ItemResult]:
    return iter(())


@frozen(kw_only=True)
class LoadReport:
    """The summary of a run. `found` always equals the sum of the eight outcomes.

    Truthy if no file failed, stalled, is unknown or pending, and the run was not stopped.
    `bytes` is the size of the accepted files. `requests` counts all attempts, `retries` those after
    the first of a call or a file; `goodput` is in documents per second.
    `skipped_reasons` maps each reason to the number of files skipped for it. `warnings` are
    sentences about the load as a whole. `metadata_set` counts the documents whose metadata was set,
    those of unchanged files too. `journal` is the path of the journal, None if it was kept
    in memory. After a dry run, `pending` counts the files that would be sent; they do not make
    the report falsy.
    """

    found: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    stalled: int = 0
    unknown: int = 0
    pending: int = 0
    bytes: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0
    goodput: float = 0.0
    verified: bool = False
    dry_run: bool = False
    stopped: StopReason | None = None
    stop_message: str | None = None
    metadata_set: int = 0
    skipped_reasons: Mapping[str, int] = field(factory=dict)
    warnings: Sequence[str] = ()
    journal: str | None = None
    _failures: Callable[[], Iterator[ItemResult]] = field(
        default=_no_failures, repr=False, eq=False, alias="_failures"
    )

    def __bool__(self) -> bool:
        pending = 0 if self.dry_run else self.pending
        return not (
            self.failed or self.stalled or self.unknown or pending or self.stopped is not None
        )

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: that of `stopped`, else 3 if files failed, else 0."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return 0 if self else 3

    def failures(self) -> Iterator[ItemResult]:
        """Iterate over every file that makes the report falsy, from the journal.

        A journal keeps the failures of its last five runs.

        Raises:
            JournalError: the journal is missing or damaged.
        """
        return self._failures()

    def raise_for_failures(self) -> None:
        """Raise LoadError unless the report is truthy.

        Raises:
            LoadError: with the counts and the first files that were not loaded.
        """
        if self:
            return
        bad = self.failed + self.stalled + self.unknown + self.pending
        error = LoadError(
            f"{bad} of {self.found} files were not loaded"
            f"{f' ({self.stopped}: {self.stop_message})' if self.stopped else ''}.",
            hint="LoadReport.failures() lists each file with its reason.",
        )
        for result in itertools.islice(self._failures(), 20):
            error.add_note(f"{result.key}: {result.outcome}: {result.reason}")
        raise error

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name, with `exit_code`."""
        fields = attrs.asdict(self, filter=lambda attribute, _: attribute.name != "_failures")
        return {**fields, "exit_code": self.exit_code}

    def to_json(self) -> str:
        """Return `to_dict()` as one line of JSON."""
        return json.dumps(self.to_dict())
