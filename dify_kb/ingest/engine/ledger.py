"""Record the outcomes of files: count them, write them to the journal, report progress."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from attrs import define, field

from dify_kb.ingest.journal import Journal, JournalState
from dify_kb.ingest.load_options import LoadOptions
from dify_kb.ingest.metadata.collect_metadata import MetadataWarnings
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.progress import Progress
from dify_kb.ingest.report import GOOD_OUTCOMES, ItemResult, LoadReport, Outcome, StopReason
from dify_kb.ingest.sources.source_reader import SourceTotals
from dify_kb.transport.clock import loop_time

from .file_states import FileState
from .tracked_file import TrackedFile

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from dify_kb.transport import AttemptEvent

T = TypeVar("T")


@define
class RunStop:
    """Request to stop a run early; nothing is sent after it.

    `abandoned`: accepted documents are no longer followed either.
    """

    reason: StopReason | None = None
    message: str | None = None
    abandoned: bool = False
    _waiting: anyio.CancelScope | None = None

    def request(self, reason: StopReason, message: str) -> None:
        """Request a stop, unless one was requested before."""
        if self.reason is None:
            self.reason, self.message = reason, message
            if self._waiting is not None:
                self._waiting.cancel()

    async def wait_unless_requested(self, awaitable: Awaitable[T]) -> T | None:
        """Return the result of an awaitable; None as soon as a stop is requested."""
        with anyio.CancelScope() as scope:
            self._waiting = scope
            if self.is_requested:
                scope.cancel()
            try:
                return await awaitable
            finally:
                self._waiting = None
        return None

    @property
    def is_requested(self) -> bool:
        """Whether a stop was requested."""
        return self.reason is not None


_WAITING = frozenset({
    FileState.UNKNOWN, FileState.BUSY, FileState.REFUSED, FileState.POSTPONED,
})  # fmt: skip


@define(eq=False)
class AttemptCounter:
    """Counter of the attempts of all calls of a load."""

    total: int = 0
    retries: int = 0

    def count(self, attempt: AttemptEvent) -> None:
        """Count an attempt."""
        self.total += 1
        self.retries += attempt.attempt > 1


@define(eq=False)
class DeletedCharactersWarning:
    """A warning with the number of characters that all server versions delete (measured)."""

    count: int = 0
    files: int = 0
    first: str = ""

    def add(self, key: str, count: int) -> None:
        """Add the number of such characters in a file."""
        if count:
            self.first = self.first or key
            self.files += 1
            self.count += count

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings for the report."""
        if not self.files:
            return ()
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        warning = (
            "Dify deletes the characters ï, ¿ and ¾ from texts and replaces <| by < and |> by >"
            f" (occurrences: {self.count:,} in {files}, such as {self.first!r})."
        )
        return (warning,)


@define(eq=False)
class Ledger:
    """Recorder of outcomes, in the counts, the journal and progress events.

    Does not stop the run: see `has_ended` and `is_over_limit`.
    """

    journal: Journal
    options: LoadOptions
    breaker: CircuitBreaker
    stop: RunStop
    requests: AttemptCounter
    counts: Counter[Outcome] = field(factory=Counter)
    skipped_reasons: Counter[str] = field(factory=Counter)
    found: int = 0
    scanned: bool = False
    is_cut_off: bool = False
    """Whether the run stopped before a generator was exhausted."""

    totals: SourceTotals | None = None
    bytes: int = 0
    resent: int = 0
    """Number of sends of files after their first."""

    open: set[TrackedFile] = field(factory=set)
    """Files without an outcome."""

    _by_state: Counter[FileState] = field(factory=Counter)
    _to_send: int = 0
    _accepted: int = 0
    _bytes_done: int = 0
    _worked: int = 0
    _began: float = field(factory=loop_time)
    deleted_characters: DeletedCharactersWarning = field(factory=DeletedCharactersWarning)
    metadata_warnings: MetadataWarnings = field(factory=MetadataWarnings)
    metadata_set: int = 0
    """Number of documents whose metadata was set."""

    @property
    def has_ended(self) -> bool:
        """Whether every file of the source has an outcome."""
        return self.scanned and not self.open

    @property
    def is_over_limit(self) -> bool:
        """Whether more files failed than `max_failures` allows."""
        max_failed = self.options.failure_limit
        return max_failed is not None and self.counts[Outcome.FAILED] > max_failed

    def has_only_files_in(self, *states: FileState) -> bool:
        """Return whether the source is scanned and every open file is in one of `states`."""
        return self.scanned and len(self.open) == sum(self._by_state[state] for state in states)

    def record_planned(self, file: TrackedFile, *, sends: bool) -> None:
        """Record a planned file that needs an action."""
        self.open.add(file)
        self._by_state[file.state] += 1
        self._to_send += sends

    def change_state(self, file: TrackedFile, state: FileState) -> None:
        """Change the state of a file."""
        self._by_state[file.state] -= 1
        file.state = state
        if state is FileState.ENDED:
            self.open.discard(file)
        else:
            self._by_state[state] += 1

    def record_accepted(self, file: TrackedFile, *, remembered: bool) -> None:
        """Record that the server has accepted the document of a file."""
        document = file.document
        self._accepted += 1
        if document is not None and not remembered:
            self.bytes += file.planned.found.size
            self.journal.record_accepted(
                file.key, document.id, document.batch, document.upload_file_id
            )
        self.report_progress()

    def record_row(self, file: TrackedFile, state: JournalState, reason: str | None) -> None:
        """Record the state of a file in its row of the journal."""
        row = file.planned.row
        if (
            state is JournalState.DONE
            and file.expected_outcome is Outcome.UNCHANGED
            and row is not None
        ):
            state = row.state
        elif state is JournalState.DONE and not self.options.follows:
            if not file.metadata_set:
                return  # the row is `accepted` already
            state = JournalState.ACCEPTED
        self.journal.record_state(file.key, state, reason=reason, labels=str(file.labels))

    def record_result(self, result: ItemResult) -> None:
        """Record an outcome; with `verify`, hold a good outcome until it is verified."""
        good = result.outcome in GOOD_OUTCOMES or (
            self.options.dry_run and result.outcome is Outcome.PENDING
        )
        if not good or self.options.verifies:
            self.journal.results.store(result, held=good)
        if not good or not self.options.verifies:
            self._count(result)

    def record_verified_result(self, result: ItemResult) -> None:
        """Record a held result after its verification; store it as a failure unless it is good."""
        if result.outcome not in GOOD_OUTCOMES:
            if result.outcome is Outcome.FAILED:
                self.journal.record_state(result.key, JournalState.FAILED, reason=result.reason)
            self.journal.results.store(result)
        self._count(result)

    def record_rest_as_pending(self) -> None:
        """Count files whose stored results cannot be read as pending."""
        self.counts[Outcome.PENDING] += self.found - self.counts.total()

    def report_progress(self) -> None:
        """Pass a `Progress` event to the listener, if any."""
        listener = self.options.on_event
        if listener is None:
            return
        totals = self.totals
        listener(
            Progress(
                found=self.found,
                scanned=self.scanned,
                total=self.found if self.scanned else _total(totals),
                total_bytes=totals.bytes if totals else None,
                to_send=self._to_send,
                accepted=self._accepted,
                ended=sum(self.counts[outcome] for outcome in Outcome if self._ends(outcome)),
                failed=sum(
                    self.counts[outcome]
                    for outcome in (Outcome.FAILED, Outcome.STALLED, Outcome.UNKNOWN)
                ),
                bytes=self.bytes,
                bytes_done=self._bytes_done,
                eta=_eta(totals, self.counts.total(), self._worked, self._began),
                settling=sum(self._by_state[state] for state in _WAITING),
                in_flight=self._by_state[FileState.SENDING],
                paused=None if self.breaker.is_closed else self.breaker.cause,
                stopped=self.stop.reason,
            )
        )

    def report(self, seconds: float) -> LoadReport:
        """Return the report of the load."""
        done = (
            self.has_ended
            and not self.is_cut_off
            and all(outcome in GOOD_OUTCOMES for outcome in +self.counts)
        )
        in_time = done and self.stop.reason is StopReason.DEADLINE
        counts: dict[str, Any] = {outcome.value: self.counts[outcome] for outcome in Outcome}
        loaded = counts["added"] + counts["updated"]
        return LoadReport(
            found=self.counts.total(),
            **counts,
            bytes=self.bytes,
            requests=self.requests.total,
            retries=self.requests.retries + self.resent,
            seconds=seconds,
            goodput=loaded / seconds if seconds else 0.0,
            skipped_reasons=dict(self.skipped_reasons),
            metadata_set=self.metadata_set,
            warnings=[*self.deleted_characters.warnings(), *self.metadata_warnings.warnings()],
            dry_run=self.options.dry_run,
            stopped=None if in_time else self.stop.reason,
            stop_message=None if in_time else self.stop.message,
            journal=str(self.journal.path) if self.journal.path else None,
        )

    def _count(self, result: ItemResult) -> None:
        self.counts[result.outcome] += 1
        # The total does not include files without a name.
        if result.name is not None and self._ends(result.outcome):
            self._bytes_done += result.size
        self._worked += result.attempts > 0 and result.outcome is not Outcome.UNCHANGED
        if result.outcome is Outcome.SKIPPED:
            self.skipped_reasons[result.reason or ""] += 1
        if self.options.on_event is not None:
            self.options.on_event(result)
            self.report_progress()

    def _ends(self, outcome: Outcome) -> bool:
        """Return whether a file with this outcome counts as done."""
        return outcome is not Outcome.PENDING or self.options.dry_run


def _total(totals: SourceTotals | None) -> int | None:
    return None if totals is None else totals.files + totals.refused


def _eta(totals: SourceTotals | None, ended: int, worked: int, began: float) -> float | None:
    """Return the estimated remaining seconds, by the mean of the files that needed work so far."""
    if totals is None or not worked:
        return None
    return (loop_time() - began) / worked * max(0, (_total(totals) or 0) - ended)
