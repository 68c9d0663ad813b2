"""Print the summary of a finished load, its failures, and the next command."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType

from rich.console import Console

from dify_kb import ItemResult, LoadReport, Outcome, StopReason
from dify_kb.arguments import MIB, format_size
from dify_kb.ingest.progress import format_counts

from . import output
from .bulk import format_count
from .command_line import instruct_repetition, quote_word
from .output import MAX_LISTED_FAILURES

_RETRY = "--retry-failed"
_SERVER_LIMIT = " (if the server accepts files of that size)"

_MAX_SIZE = "--max-file-size"
TOO_LARGE, UNSUPPORTED = "too large: ", "unsupported type"
"""The beginnings of the reasons of files that no retry can load."""

MAX_EXAMINED = 1000
"""The number of failed files from which the next step is derived."""

_REASONS: Mapping[StopReason, str] = {
    StopReason.RATE_LIMIT: "The server's rate limit rejects uploads.",
    StopReason.PLAN_LIMIT: "The server's plan does not allow more documents.",
    StopReason.UNAUTHORIZED: "The server rejects the API key.",
    StopReason.OUTAGE: "The server is unavailable.",
    StopReason.NOT_INDEXING: "The server is not indexing any documents.",
    StopReason.MISCONFIGURED: "The server rejects every document.",
    StopReason.MAX_FAILURES: "More than --max-failures files failed.",
    StopReason.DEADLINE: "Deadline reached.",
    StopReason.JOURNAL: "The journal cannot be written.",
    StopReason.DATASET_DELETED: "The dataset was deleted.",
    StopReason.SOURCE_MISSING: "The source does not exist.",
    StopReason.SOURCE_EMPTY: "The source contains no file to load.",
    StopReason.NO_FILES: "No files to load.",
}
"""Messages for reports without one."""

_REMEDIES: Mapping[StopReason, str] = {
    StopReason.RATE_LIMIT: "Wait until the server accepts uploads again, or pass --rate 100/min.",
    StopReason.PLAN_LIMIT: "Delete documents or upgrade the plan.",
    StopReason.UNAUTHORIZED: "Pass a key with write permission (--api-key or DIFY_API_KEY).",
    StopReason.OUTAGE: "Wait until the server is available; check it with `dify-kb doctor`.",
    StopReason.NOT_INDEXING: "Check the server's Celery worker: nothing is being indexed.",
    StopReason.MISCONFIGURED: (
        "Check the base URL, the proxy, and the models and chunking settings of the dataset."
    ),
    StopReason.MAX_FAILURES: "Check the failed files listed above.",
    StopReason.DEADLINE: "",
    StopReason.JOURNAL: "Free disk space, or make the journal writable.",
    StopReason.DATASET_DELETED: "Pass another --dataset, or --create to create it again.",
    StopReason.SOURCE_MISSING: "Check PATH and --check, and whether the share is mounted.",
    StopReason.SOURCE_EMPTY: "Check PATH, --include and --exclude.",
    StopReason.NO_FILES: "Check PATH, --include and --exclude.",
}


def print_summary(
    console: Console, report: LoadReport, planned: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Print the counts by outcome, the reasons of skipped files, and the speed.

    `planned` counts the files of a dry run by what would be done, instead of pending ones.
    """
    counts = {outcome: getattr(report, outcome) for outcome in Outcome}
    counts[Outcome.PENDING] -= sum(planned.values())
    parts = [f"{count:,} {text}" for text, count in planned.items()]
    parts += [format_counts(counts)] if any(counts.values()) else []
    console.print(
        f"{format_count(report.found, 'file')} found in {report.seconds:.1f} s:"
        f" {', '.join(parts) or 'nothing to do'}"
        f"{f', metadata set on {report.metadata_set:,}' if report.metadata_set else ''}."
    )
    print_skipped(console, report)
    if report.dry_run:
        console.print("Nothing was sent: this was a dry run.")
        return
    print_costs(console, report)


def print_costs(console: Console, report: LoadReport) -> None:
    """Print the size of the uploads, the speed, and the requests."""
    speed = (
        f"{format_size(report.bytes)} uploaded, {report.goodput:.1f} documents/s, "
        if report.bytes
        else ""
    )
    retries = "1 retry" if report.retries == 1 else f"{report.retries:,} retries"
    console.print(f"{speed}{format_count(report.requests, 'request')}, {retries}.")


def print_skipped(console: Console, report: LoadReport) -> None:
    """Print the reasons of skipped files."""
    if report.skipped_reasons:
        console.print(f"{report.skipped:,} skipped: {_format_reasons(report.skipped_reasons)}.")


def print_failures(report: LoadReport, refused: Sequence[ItemResult]) -> None:
    """Print the first files that failed, stalled or are unknown; pending ones are only counted.

    `refused` are failures that are not in the report's journal.
    """
    failure_count = report.failed + report.stalled + report.unknown
    if not failure_count:
        return
    results = itertools.chain(refused, report.failures())
    shown_results = (result for result in results if result.outcome is not Outcome.PENDING)
    for result in itertools.islice(shown_results, min(failure_count, MAX_LISTED_FAILURES)):
        output.err.print(format_result(result))
    if failure_count > MAX_LISTED_FAILURES:
        whole = (
            f"`dify-kb journal show --failures {quote_word(str(report.journal))}`"
            if report.journal
            else ""
        )
        output.err.print(
            f"  … and {failure_count - MAX_LISTED_FAILURES:,} more; {whole or '--json'} lists all."
        )


def format_result(result: ItemResult) -> str:
    """Return the outcome, key and reason of a file in one line."""
    reason = f": {output.escape(output.name_options(result.reason))}" if result.reason else ""
    return f"  {result.outcome}  {output.escape(result.key)}{reason}"


def print_warnings(report: LoadReport) -> None:
    """Print the warnings of a load on stderr."""
    for warning in report.warnings:
        output.err.print(f"warning: {output.escape(output.name_options(warning))}")


def format_stop_reason(report: LoadReport, noun: str = "load") -> str | None:
    """Return the error line of a load or sync that stopped; None if it did not stop."""
    if report.stopped is None:
        return None
    message = output.escape(output.name_options(report.stop_message or _REASONS[report.stopped]))
    return f"error: The {noun} stopped ({report.stopped}): {message}"


def next_step(
    report: LoadReport, words: Sequence[str], refused: Sequence[ItemResult] = ()
) -> str | None:
    """Return the next step and its command; None if nothing is left to do.

    `refused` are failures that are not in the report's journal.
    """
    if report or report.dry_run:
        return None
    extra = _find_remedies([*refused, *itertools.islice(report.failures(), MAX_EXAMINED)])
    retry = _RETRY in extra
    limit = _SERVER_LIMIT if any(one.startswith(_MAX_SIZE) for one in extra) else ""
    if report.stopped is None:
        purpose = (
            "retry the failed files"
            if retry
            else f"load the failed files, too{limit}"
            if extra
            else "check the remaining files"
        )
        return instruct_repetition(purpose, words, *extra)
    purpose = "resume and retry the failed files" if retry else "resume"
    repetition = instruct_repetition(purpose, words, *extra)
    return f"{_REMEDIES[report.stopped]} {repetition}".lstrip()


def _find_remedies(failures: Sequence[ItemResult]) -> list[str]:
    """Return the options with which failed files can be loaded: a retry does not help them all."""
    options: list[str] = []
    failed = [one for one in failures if one.outcome in {Outcome.FAILED, Outcome.STALLED}]
    sizes = [one.size for one in failed if (one.reason or "").startswith(TOO_LARGE)]
    patterns = dict.fromkeys(
        f"*{PurePath(one.key).suffix}" if PurePath(one.key).suffix else PurePath(one.key).name
        for one in failed
        if (one.reason or "").startswith(UNSUPPORTED)
    )
    if any(not (one.reason or "").startswith((TOO_LARGE, UNSUPPORTED)) for one in failed):
        options.append(_RETRY)
    if largest := max(sizes, default=0):
        options.append(f"{_MAX_SIZE}={math.ceil(largest / MIB)}MiB")
    return options + [f"--as-text={pattern}" for pattern in patterns]


def _format_reasons(counts: Mapping[str, int]) -> str:
    by_frequency = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(
        f"{count:,} {output.escape(output.name_options(reason))}" for reason, count in by_frequency
    )
