"""Print the progress and the reports of exports, imports, copies and comparisons."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import define, field

from . import output
from .bulk import format_count
from .output_streams import is_quiet

if TYPE_CHECKING:
    from dify_kb import ArchiveProgress, CompareReport, ExportReport, ImportReport, VerifyReport

INTERVAL = 5.0
"""Seconds between lines of progress."""

_STAGES: Mapping[str, tuple[str, str]] = {
    "verify": ("Verifying", "member"),
    "list": ("Listing", "document"),
    "read": ("Reading", "document"),
    "write": ("Writing", "shard"),
    "restore": ("Creating", "document"),
    "metadata": ("Setting metadata of", "document"),
    "states": ("Setting states of", "document"),
}

MAX_LISTED = 20
"""Failures and differences that are listed without --json."""


@define
class ArchiveProgressPrinter:
    """Prints a line when the documents are known, then one every 5 seconds, on stderr."""

    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)
    _announced: set[str] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._last = self.clock()

    def __call__(self, event: ArchiveProgress) -> None:
        """Print an event if it is time."""
        if is_quiet():
            return
        verb, noun = _STAGES[event.stage]
        is_plan = event.planned_requests is not None and event.stage in {"read", "restore"}
        if is_plan and event.stage not in self._announced:
            self._announced.add(event.stage)
            self._last = self.clock()
            output.err.print(
                f"{verb} {format_count(event.total or 0, noun)}, about"
                f" {format_count(event.planned_requests or 0, 'request')} in all."
            )
        elif self.clock() - self._last >= INTERVAL:
            self._last = self.clock()
            total = "" if event.total is None else f"/{event.total:,}"
            planned = f"/{event.planned_requests:,}" if event.planned_requests else ""
            output.err.print(
                f"{verb} {noun}s: {event.done:,}{total}, requests: {event.requests:,}{planned}"
            )


class JsonReport(Protocol):
    """A report with a JSON form."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        ...


def print_report(report: JsonReport, lines: Callable[[], None], *, json: bool) -> None:
    """Print a report as a line of JSON, or as text by `lines`."""
    if json:
        output.print_json({"type": "report", **report.to_dict()})
    else:
        lines()


def print_export(report: ExportReport) -> None:
    """Print the summary of an export."""
    if report.dry_run:
        output.out.print(
            f"Would read {format_count(report.exported, 'document')} with about"
            f" {format_count(report.planned_requests, 'request')}. Nothing was written."
        )
        return
    children = f", {report.child_chunks:,} child chunks" if report.child_chunks else ""
    removed = f", {report.removed:,} removed" if report.removed else ""
    output.out.print(
        f"{output.escape(report.path)}: {format_count(report.documents, 'document')},"
        f" {format_count(report.chunks, 'chunk')}{children},"
        f" {format_count(report.files, 'file')}."
    )
    output.out.print(
        f"{report.exported:,} read, {report.unchanged:,} unchanged{removed},"
        f" {format_count(report.requests, 'request')} in {report.seconds:.1f} s."
    )
    for reason, count in report.missing_files.items():
        output.note(f"{format_count(count, 'document')} without file: {output.escape(reason)}.")
    _print_end(report.warnings, report.stop_message if report.stopped else None)


def print_import(report: ImportReport) -> None:
    """Print the summary of an import."""
    counts = {
        name: getattr(report, name)
        for name in ("added", "updated", "unchanged", "skipped", "failed", "pending")
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    target = output.escape(report.dataset_name or "")
    output.out.print(
        f"{target}: {format_count(report.documents, 'document')}: {shown or 'nothing to do'}."
    )
    if report.dry_run:
        output.out.print(
            f"About {format_count(report.planned_requests, 'request')}. Nothing was changed."
        )
        return
    methods = ", ".join(f"{count:,} {_METHODS[name]}" for name, count in report.methods.items())
    if methods:
        output.out.print(f"Chunks: {methods}.")
    output.out.print(f"{format_count(report.requests, 'request')} in {report.seconds:.1f} s.")
    for kind, count in report.losses.items():
        output.note(f"Not kept: {kind} ({count:,}).")
    for name, reason in list(report.failures.items())[:MAX_LISTED]:
        output.err.print(f"  failed  {output.escape(name)}: {output.escape(reason)}")
    _print_end(report.warnings, report.stop_message if report.stopped else None)


_METHODS = {
    "file": "documents from their files",
    "joined": "from joined texts",
    "appended": "appended",
}


def print_comparison(report: CompareReport) -> None:
    """Print the differences of a comparison."""
    for difference in report.differences[:MAX_LISTED]:
        name = output.escape(difference.document or "(dataset)")
        detail = f": {output.escape(difference.detail)}" if difference.detail else ""
        output.out.print(f"{difference.kind}  {name}{detail}")
    total = sum(report.counts.values())
    if total > MAX_LISTED:
        output.note(f"… and {total - MAX_LISTED:,} more; --json lists up to 1,000.")
    counts = ", ".join(f"{count:,} {kind}" for kind, count in report.counts.items())
    output.out.print(
        f"{report.documents_a:,} and {report.documents_b:,} documents: {counts or 'equal'}."
    )


def print_verification(report: VerifyReport) -> None:
    """Print the result of a verification."""
    for problem in report.problems[:MAX_LISTED]:
        output.err.print(output.escape(problem))
    size = f"{report.bytes / 1024 / 1024:.1f} MiB"
    state = "undamaged" if not report.problem_count else f"{report.problem_count:,} problems"
    output.out.print(
        f"{output.escape(report.path)}: {format_count(report.documents, 'document')},"
        f" {format_count(report.chunks, 'chunk')}, {format_count(report.files, 'file')}, {size}:"
        f" {state}."
    )
    if report.comparison is not None:
        print_comparison(report.comparison)


def _print_end(warnings: object, stop_message: str | None) -> None:
    for warning in warnings if isinstance(warnings, list | tuple) else ():
        output.err.print(f"warning: {output.escape(str(warning))}")
    if stop_message is not None:
        output.err.print(f"stopped: {output.escape(stop_message)}")
        output.err.print("next:  Run the same command again: it continues where it stopped.")
