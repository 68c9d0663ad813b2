"""How each file ended, and the sum of it."""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import attrs
from attrs import field, frozen

from dify_kb.errors import LoadError


class Outcome(enum.StrEnum):
    """How a file ended. Every key found has exactly one."""

    ADDED = "added"
    """Accepted as a new document and, as `wait` says, indexed."""

    UPDATED = "updated"
    """The same in place of the document of that name."""

    UNCHANGED = "unchanged"
    """Done by an earlier run, not sent."""

    SKIPPED = "skipped"
    """Left out by a rule."""

    FAILED = "failed"
    """Not in the knowledge base, or in it with nothing to find."""

    STALLED = "stalled"
    """Accepted, and then nothing moved for `stall_after`."""

    UNKNOWN = "unknown"
    """Sent, the answer lost, and not found since."""

    PENDING = "pending"
    """The run stopped before it."""


GOOD = frozenset({Outcome.ADDED, Outcome.UPDATED, Outcome.UNCHANGED, Outcome.SKIPPED})


class StopReason(enum.StrEnum):
    """Why a run ended early."""

    RATE_LIMIT = "rate_limit"
    PLAN_LIMIT = "plan_limit"
    UNAUTHORIZED = "unauthorized"
    OUTAGE = "outage"
    NOT_INDEXING = "not_indexing"
    MISCONFIGURED = "misconfigured"


_EXIT_CODES: Mapping[StopReason, int] = {
    StopReason.RATE_LIMIT: 5,
    StopReason.PLAN_LIMIT: 4,
    StopReason.UNAUTHORIZED: 4,
    StopReason.OUTAGE: 5,
    StopReason.NOT_INDEXING: 5,
    StopReason.MISCONFIGURED: 6,
}


@frozen(kw_only=True)
class ItemResult:
    """How one file ended.

    `name` is that of its document. `timings` are seconds: `upload` for the create, retries and
    all, `index` from its answer to the end of indexing as seen from here.
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


def refused(key: str, outcome: Outcome, reason: str, *, size: int = 0) -> ItemResult:
    """End a file that was not sent."""
    return ItemResult(key=key, outcome=outcome, reason=reason, size=size)


@frozen(kw_only=True)
class LoadReport:
    """The sum of a run: `found` is the sum of the eight outcomes, always.

    True in a condition when nothing failed, stalled, or is unknown or pending. `bytes` were
    accepted; `requests` counts every attempt, `retries` those after the first; `goodput` is in
    documents per second.
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
    stopped: StopReason | None = None
    stop_message: str | None = None
    journal: str | None = None
    _failures: Sequence[ItemResult] = field(default=(), repr=False, alias="_failures")

    def __bool__(self) -> bool:
        return not (
            self.failed or self.stalled or self.unknown or self.pending or self.stopped is not None
        )

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 0, 3 when files failed, else by `stopped`."""
        if self.stopped is not None:
            return _EXIT_CODES[self.stopped]
        return 0 if self else 3

    def failures(self) -> Iterator[ItemResult]:
        """Give every file that makes the report False."""
        return iter(self._failures)

    def raise_for_failures(self) -> None:
        """Raise unless the report is True.

        Raises:
            LoadError: with the counts and the first files.
        """
        if self:
            return
        bad = self.failed + self.stalled + self.unknown + self.pending
        error = LoadError(
            f"{bad} of {self.found} files were not loaded"
            f"{f' ({self.stopped}: {self.stop_message})' if self.stopped else ''}.",
            hint="LoadReport.failures() gives each with its reason.",
        )
        for result in self._failures[:20]:
            error.add_note(f"{result.key}: {result.outcome}: {result.reason}")
        raise error

    def to_dict(self) -> dict[str, object]:
        """Give the counts by their names, and `exit_code`."""
        fields = attrs.asdict(self, filter=lambda attribute, _: attribute.name != "_failures")
        return {**fields, "exit_code": self.exit_code}

    def to_json(self) -> str:
        """Write the same as one line of JSON."""
        return json.dumps(self.to_dict())


class Tally:
    """Counts results as they come."""

    def __init__(self) -> None:
        self.counts: Counter[Outcome] = Counter()
        self.bytes = 0
        self.requests = 0
        self.retries = 0
        self._failures: list[ItemResult] = []

    @property
    def ended(self) -> int:
        """Files that have an outcome."""
        return self.counts.total()

    @property
    def bad(self) -> int:
        """Files that make the report False."""
        return len(self._failures)

    def add(self, result: ItemResult) -> None:
        """Count one."""
        self.counts[result.outcome] += 1
        if result.outcome not in GOOD:
            self._failures.append(result)

    def report(
        self, *, seconds: float, stopped: StopReason | None, message: str | None
    ) -> LoadReport:
        """Sum up."""
        loaded = self.counts[Outcome.ADDED] + self.counts[Outcome.UPDATED]
        return LoadReport(
            found=self.ended,
            added=self.counts[Outcome.ADDED],
            updated=self.counts[Outcome.UPDATED],
            unchanged=self.counts[Outcome.UNCHANGED],
            skipped=self.counts[Outcome.SKIPPED],
            failed=self.counts[Outcome.FAILED],
            stalled=self.counts[Outcome.STALLED],
            unknown=self.counts[Outcome.UNKNOWN],
            pending=self.counts[Outcome.PENDING],
            bytes=self.bytes,
            requests=self.requests,
            retries=self.retries,
            seconds=seconds,
            goodput=loaded / seconds if seconds else 0.0,
            stopped=stopped,
            stop_message=message,
            _failures=tuple(self._failures),
        )
