"""Progress, tables and report files of `bench` and `eval`, and metrics files."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dify_kb.bench import render_instance_report
from dify_kb.bench.html_report import ReportTable
from dify_kb.bench.quality import render_quality_report
from dify_kb.bench.svg_charts import format_number
from dify_kb.errors import ConfigError, KnowledgeError

from . import output

if TYPE_CHECKING:
    from dify_kb.bench.benchmark_plan import BenchmarkPlan
    from dify_kb.bench.benchmark_progress import OnProgress, ProgressStep
    from dify_kb.bench.report_comparison import Difference
    from dify_kb.bench.results import InstanceReport, QualityReport

_WHOLE_COLUMNS = frozenset({"method"})
"""Columns that are never shortened: their words differ at the end."""

LINE_INTERVAL = 5.0
"""Seconds between progress lines if no bar is shown."""

CLEANUP_NOTICE = (
    "Deleting the temporary datasets; press Ctrl-C again to stop immediately (then run"
    " `dify-kb bench clean` to delete them)."
)


@contextmanager
def show_progress(*, quiet: bool, plain: bool) -> Iterator[OnProgress]:
    """Show steps on stderr until the block ends: a bar on a terminal, else lines."""
    if quiet:
        yield lambda _: None
    elif plain or not output.err.is_terminal:
        yield _PlainSteps()
    else:
        with Progress(
            TextColumn("{task.fields[phase]:10}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=output.err,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        ) as bars:
            task = bars.add_task("", total=1.0, phase="")

            def update(step: ProgressStep) -> None:
                completed = step.completed_part or None
                description = output.escape(step.description)
                bars.update(task, completed=completed, description=description, phase=step.phase)

            yield update


class _PlainSteps:
    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._phase = ""

    def __call__(self, step: ProgressStep) -> None:
        now = time.monotonic()
        if step.phase == self._phase and now - self._printed < LINE_INTERVAL:
            return
        self._phase, self._printed = step.phase, now
        seconds = now - self._started
        output.err.print(f"{seconds:6.0f} s  {step.phase:10}  {output.escape(step.description)}")


def _print_verdict(verdict: str, warnings: Sequence[str]) -> None:
    output.out.print(output.escape(verdict))
    for warning in warnings:
        output.note(f"warning: {output.escape(warning)}")
    output.out.print("")


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values as a table."""
    output.print_table(("", ""), facts)


def print_report_table(heading: str, table: ReportTable) -> None:
    """Print a table with a heading; names are aligned left, numbers right."""
    output.out.print(f"\n{output.escape(heading)}")
    named = [
        name
        for place, name in enumerate(table.columns)
        if name not in _WHOLE_COLUMNS and not table.is_numeric(place)
    ]
    output.print_table(table.columns, table.rows, shortened=named, highlighted=table.highlighted)


def check_writable(files: Sequence[Path | None]) -> None:
    """Check before a measurement that its report files can be written.

    Raises:
        ConfigError: a file cannot be written.
    """
    for file in files:
        if file is not None and (code := _find_write_error(file)):
            raise ConfigError(
                f"Cannot write to {file}: {os.strerror(code)}.",
                hint="Pass a file in a folder that exists and is writable.",
            )


def _find_write_error(file: Path) -> int:
    """Return the number of the error of writing a file, without creating it; else 0."""
    if file.is_dir():
        return errno.EISDIR
    if not file.exists() and not file.parent.is_dir():
        return errno.ENOENT
    return 0 if os.access(file if file.exists() else file.parent, os.W_OK) else errno.EACCES


def save_file(file: Path | None, text: str) -> None:
    """Write a report file and print its path; without a path, do nothing.

    Raises:
        KnowledgeError: the file cannot be written, as on a full disk.
    """
    if file is None:
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise KnowledgeError(
            f"Cannot write to {file}: {error.strerror}.", hint="Free disk space."
        ) from error
    output.note(f"Wrote {output.escape(str(file))}.")


MetricFamily = tuple[str, list[tuple[Mapping[str, str], float]]]
"""The help of a metric, and its values with their labels."""


def format_metrics(prefix: str, families: Mapping[str, MetricFamily]) -> str:
    """Return gauges by name in the text format of Prometheus."""
    lines: list[str] = []
    for name, (text, rows) in families.items():
        lines += (f"# HELP {prefix}_{name} {text}", f"# TYPE {prefix}_{name} gauge")
        for labels, value in rows:
            pairs = ",".join(f'{label}="{_escape_label(of)}"' for label, of in labels.items())
            lines.append(f"{prefix}_{name}{f'{{{pairs}}}' if pairs else ''} {value:.15g}")
    return "\n".join([*lines, ""])


def _escape_label(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@define
class MetricsFile:
    """A file that is replaced as a whole, so that a reader never finds half of it."""

    path: Path
    _failure: str = ""

    def write(self, text: str) -> None:
        """Replace the file; if that fails, print why once, as a later write may succeed."""
        # Its name does not end in .prom, by which node_exporter selects files.
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        failure = ""
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            failure = f"Cannot write to {self.path}: {error.strerror}."
        if failure and failure != self._failure:
            output.err.print(failure)
        self._failure = failure


def describe_measurement(url: str, plan: BenchmarkPlan) -> str:
    """Return the maximum cost of a measurement, in two lines."""
    load = plan.estimate_load()
    return (
        f"Measuring {output.escape(url)}: at most {load.documents:,} documents"
        f" ({render_instance_report.format_size(load.bytes)}), {load.searches:,} searches,"
        f" {load.at_once} concurrent requests, {load.seconds:.0f} s.\n"
        f"{plan.documents} documents and all searches use the embedding model, if the server has"
        " one. The temporary datasets are deleted at the end, even after Ctrl-C."
    )


def print_instance_report(report: InstanceReport) -> None:
    """Print the report of `bench`."""
    _print_verdict(
        render_instance_report.instance_verdict(report),
        render_instance_report.instance_warnings(report),
    )
    print_facts(render_instance_report.instance_facts(report))
    for row in report.uploads:
        size = render_instance_report.format_size(row.size)
        saturation = render_instance_report.describe_saturation(row)
        print_report_table(
            f"Uploads of {size}. {saturation}", render_instance_report.upload_table(row)
        )
    if report.indexed:
        print_report_table("Indexing", render_instance_report.indexing_table(report.indexed))
    if report.searches:
        print_report_table("Retrieval", render_instance_report.search_table(report.searches))
    if report.listed:
        print_report_table(
            "Listing 100 documents", render_instance_report.list_latency_table(report.listed)
        )
    if report.troubles:
        print_report_table("Errors", render_instance_report.error_table(report.troubles))
    for note in report.notes:
        output.note(f"note: {output.escape(note)}")


def print_differences(
    found: Sequence[Difference],
    *,
    everything: bool,
    sides: tuple[str, str],
) -> None:
    """Print the differences between two reports. `sides` are the headings of their values."""
    shown = [row for row in found if everything or row.verdict != "same"]
    if shown:
        rows = [
            [
                row.name,
                format_number(row.before),
                format_number(row.after),
                row.unit,
                "-" if row.ratio is None else f"{row.ratio:.2f}",
                row.verdict,
            ]
            for row in shown
        ]
        columns = ("", *sides, "unit", "ratio", "")
        heading = "All values" if everything else "Changed values"
        print_report_table(heading, ReportTable(columns=columns, rows=rows))
    same = len(found) - len([row for row in found if row.verdict != "same"])
    output.note(f"{same} of {len(found)} values unchanged.")


def print_quality_report(report: QualityReport) -> None:
    """Print the report of `eval`."""
    _print_verdict(
        render_quality_report.quality_verdict(report),
        render_quality_report.quality_warnings(report),
    )
    print_facts(render_quality_report.quality_facts(report))
    print_report_table(
        "Configurations, best nDCG first", render_quality_report.quality_table(report)
    )
    for note in report.notes:
        output.note(f"note: {output.escape(note)}")
