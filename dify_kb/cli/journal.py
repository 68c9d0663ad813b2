from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import attrs
import typer

from dify_kb.arguments import parse_duration
from dify_kb.errors import ConfigError, JournalError, KnowledgeError

from . import bulk, completion, exit_codes, option_types, output
from .name_lookup import ResourceRef
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import ItemResult
    from dify_kb.ingest.journal import JournalRow, JournalState
    from dify_kb.ingest.journal.read_journal import JournalOverview, PastRun

journal = typer.Typer(
    help="Show, export and delete the journals of loads.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


NAME_HELP = "Loaded folder, name of the dataset, or name or path of a journal"

JournalDatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="NAME|ID",
        help="Only journals of this dataset: its name or id, or PROFILE:NAME.",
        callback=option_types.select_optional_dataset,
        autocompletion=completion.complete_dataset,
    ),
]


@journal.command("show")
def show_(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="JOURNAL", help=f"{NAME_HELP}; default: all journals.", show_default=False
        ),
    ] = None,
    dataset: JournalDatasetOption = None,
    state: Annotated[
        option_types.JournalStateName | None,
        typer.Option(help="List the files with this state.", show_default=False),
    ] = None,
    failures: Annotated[
        bool,
        typer.Option(
            "--failures", help="List all failed files of the last run; default: the first 20."
        ),
    ] = False,
) -> None:
    """Show all journals, or one with its runs and failures.

    States of a file: waiting (not sent), sending (upload started, outcome unknown), accepted (not
    indexed yet), done (indexed), failed, stalled (no indexing progress), emptied (replacing it
    failed, its document has no chunks). Works while a load is running.
    """
    from dify_kb.ingest.journal import JournalState, read_journal

    command: CommandContext = context.obj
    found = _find_journals(command, name, dataset)
    if len(found) != 1 or (name is None and dataset is None):
        if state is not None or failures:
            raise ConfigError(
                "--state and --failures require one journal.",
                hint="Pass its name as `dify-kb journal show` prints it.",
            )
        raise typer.Exit(_print_all(command, found))
    (path,) = found
    overview = read_journal.read_overview(path)
    if command.json:
        output.print_json({"type": "journal", **_overview_fields(overview)})
    else:
        _print_journal(overview)
    if state is not None:
        _print_files(command, read_journal.iter_rows(path, state=JournalState(state)))
    if overview.last is not None:
        _print_failures(command, overview, list_all=failures or command.json)


@journal.command()
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="JOURNAL", help=f"{NAME_HELP}.")],
    dataset: JournalDatasetOption = None,
) -> None:
    """Print the files of a journal as JSON Lines."""
    from dify_kb.ingest.journal import read_journal

    found = _find_journals(context.obj, name, dataset)
    if len(found) > 1:
        raise _ambiguity(found, name)
    for row in read_journal.iter_rows(found[0]):
        output.print_json(_row_fields(row))


@journal.command()
def prune(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="JOURNAL", help=f"{NAME_HELP}; repeatable.")
    ] = None,
    dataset: JournalDatasetOption = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only journals not used for this time (90d, 12h)."),
    ] = None,
    gone: Annotated[
        bool, typer.Option("--gone", help="Only journals of folders that no longer exist.")
    ] = False,
    unfinished: Annotated[
        bool,
        typer.Option(
            "--unfinished",
            help="Also journals of loads that did not finish, with files of unknown outcome.",
        ),
    ] = False,
    dry_run: option_types.DryRunOption = False,
    yes: option_types.YesOption = False,
) -> None:
    """Delete journals that are not needed any more.

    All conditions must hold. Without its journal, the next load of a folder sends all files again.
    Journals in use, and those of unfinished loads, are kept.
    """
    from dify_kb.ingest.journal.lock import delete_journal

    command: CommandContext = context.obj
    age = None if older_than is None else parse_duration(older_than, "--older-than")
    if not (names or dataset or gone) and age is None:
        raise ConfigError(
            "No journals selected.", hint="Pass --older-than 90d, --gone, --dataset or names."
        )
    overviews = _read_overviews(
        dict.fromkeys(
            path for name in names or (None,) for path in _find_journals(command, name, dataset)
        )
    )
    now = time.time()
    selected = [
        one
        for one in overviews
        if (age is None or now - one.used >= age) and (not gone or _is_gone(one))
    ]
    pruned = [one for one in selected if one.writer is None and (unfinished or one.is_finished)]
    paths = {one.path.stem: one.path for one in pruned}

    async def main() -> int:
        for one in selected:
            if one not in pruned:
                reason = "in use" if one.writer is not None else "unfinished; pass --unfinished"
                output.note(f"kept  {output.escape(_label(one))} ({one.path.stem}): {reason}")
        things = [ResourceRef(one.path.stem, _label(one)) for one in pruned]
        reporter = bulk.ChangeReporter("journal", "deleted", json=command.json)
        if dry_run:
            return reporter.report_dry_run(things)
        if things:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "journal"), [*map(str, things)], yes=yes
            )

        async def delete(thing: ResourceRef) -> None:
            await anyio.to_thread.run_sync(delete_journal, paths[thing.id])

        return await bulk.change_each(things, delete, reporter)

    command.run(main)


def _find_journals(
    command: CommandContext, name: str | None, dataset: str | None
) -> Sequence[Path]:
    """Return the journals with this name or path, or of this folder or dataset, the latest first.

    Raises:
        BadParameter: the name is empty.
        KnowledgeError: there is none.
    """
    from dify_kb.ingest import state_folder
    from dify_kb.ingest.journal import read_journal

    if name is not None:
        named = option_types.parse_path(name)
        for path in (named, state_folder() / name, state_folder() / f"{name}.db"):
            if path.is_file():
                return [path]
    found = read_journal.list_journals(state_folder())
    if name is None and dataset is None:
        return found
    server = command.address if command.invocation.profile else None
    overviews = [
        one
        for one in _read_overviews(found)
        if (dataset is None or dataset in {one.dataset, one.dataset_name})
        and (server is None or _strip_path(server) == _strip_path(one.server))
    ]
    if name is not None:
        absolute = os.path.abspath(name)  # noqa: PTH100 -- as in journals
        tests: Sequence[Callable[[JournalOverview], bool]] = (
            lambda one: absolute in one.roots,
            lambda one: name in {one.dataset, one.dataset_name, *one.roots},
            lambda one: name in {PurePath(root).name for root in one.roots},
        )
        overviews = next(filter(None, ([*filter(test, overviews)] for test in tests)), [])
    if not overviews:
        raise KnowledgeError(
            f"Journal not found: {name or f'--dataset {dataset}'}",
            hint="Run `dify-kb journal show` to list all journals.",
        )
    return [one.path for one in overviews]


def _strip_path(url: str) -> str:
    return url.rstrip("/").removesuffix("/v1")


def _read_overviews(paths: Iterable[Path]) -> Sequence[JournalOverview]:
    """Read journals, without those that are damaged or of another version."""
    from dify_kb.ingest.journal import read_journal

    overviews: list[JournalOverview] = []
    for path in paths:
        with suppress(JournalError):
            overviews.append(read_journal.read_overview(path))
    return overviews


def _ambiguity(found: Sequence[Path], name: str) -> KnowledgeError:
    names = ", ".join(path.stem for path in found)
    return KnowledgeError(
        f"{len(found)} journals match {name!r}.", hint=f"Pass the name of one: {names}."
    )


def _is_gone(overview: JournalOverview) -> bool:
    """Return whether no folder of the source exists; the source is not a bucket or a list."""
    return bool(overview.roots) and not any(
        "://" in root or Path(root).exists() for root in overview.roots
    )


def _label(overview: JournalOverview) -> str:
    source = ", ".join(overview.roots) or "items or a list"
    return f"{source} in {overview.dataset_name or overview.dataset}"


def _print_all(command: CommandContext, paths: Sequence[Path]) -> int:
    """Print journals, with an error line for each that cannot be read."""
    from dify_kb.ingest import state_folder
    from dify_kb.ingest.journal import read_journal

    code = 0
    if not paths:
        output.note(f"No journals in {output.escape(str(state_folder()))}.")
    for number, path in enumerate(paths):
        try:
            overview = read_journal.read_overview(path)
        except JournalError as error:
            code = exit_codes.JOURNAL_ERROR
            output.err.print(f"error: {output.escape(error.summary)}")
            continue
        if command.json:
            output.print_json({"type": "journal", **_overview_fields(overview)})
        else:
            if number:
                output.out.print()
            _print_overview(overview)
    return code


def _print_overview(overview: JournalOverview) -> None:
    from dify_kb.bench.render_instance_report import format_size

    dataset = overview.dataset
    if overview.dataset_name is not None:
        dataset = f"{overview.dataset_name} ({dataset})"
    output.out.print(f"{overview.path.stem}  {_describe_last_run(overview)}")
    rows = {
        "  source": ", ".join(overview.roots) or "items or a list",
        "  dataset": f"{dataset} at {overview.server}",
        "  files": _format_states(overview.states) or "none",
        "  size": format_size(overview.size),
    }
    output.print_table(("", ""), rows.items())


def _print_journal(overview: JournalOverview) -> None:
    _print_overview(overview)
    output.out.print(f"  journal  {output.escape(str(overview.path))}")
    output.out.print()
    output.print_table(
        ("run", "started", "seconds", "ended", "found", "added", "updated", "failed", "left"),
        (_run_row(run, overview) for run in overview.runs),
    )


def _run_row(run: PastRun, overview: JournalOverview) -> tuple[object, ...]:
    seconds = None if run.ended is None else round(run.ended - run.started)
    report = run.report or {}
    unfinished = [report.get(name) for name in ("stalled", "unknown", "pending")]
    return (
        run.number,
        _local_time(run.started),
        seconds,
        _describe_end(run, overview),
        *(report.get(name) for name in ("found", "added", "updated", "failed")),
        sum(count for count in unfinished if isinstance(count, int)) if report else None,
    )


def _describe_end(run: PastRun, overview: JournalOverview) -> str:
    if run.report is not None:
        return str(run.report.get("stopped") or "finished")
    if run is overview.last and overview.writer is not None:
        return f"running (process {overview.writer})"
    return "interrupted"


def _describe_last_run(overview: JournalOverview) -> str:
    from dify_kb.ingest.progress import format_duration

    if overview.last is None:
        return "no run"
    started = _local_time(overview.last.started)
    age = format_duration(max(0.0, time.time() - overview.used))
    return (
        f"last run {started:%Y-%m-%d %H:%M} ({age} ago): {_describe_end(overview.last, overview)}"
    )


def _print_failures(command: CommandContext, overview: JournalOverview, *, list_all: bool) -> None:
    from dify_kb.ingest.journal import iter_failed_results

    if overview.last is None:
        return
    results = iter_failed_results(overview.path, overview.last.number)
    if command.json:
        for result in results:
            output.print_json({"type": "item", **attrs.asdict(result)})
        return
    for line in _failure_lines(results, list_all=list_all):
        output.out.print(line)


def _failure_lines(results: Iterable[ItemResult], *, list_all: bool) -> Iterator[str]:
    for number, result in enumerate(results):
        if number == 0:
            yield "\nNot loaded in the last run:"
        if not list_all and number == output.MAX_LISTED_FAILURES:
            yield "  … and more; pass --failures to list all."
            return
        reason = output.escape(result.reason or "")
        yield f"  {result.outcome}  {output.escape(result.key)}: {reason}"


def _print_files(command: CommandContext, rows: Iterable[JournalRow]) -> None:
    if command.json:
        for row in rows:
            output.print_json({"type": "file", **_row_fields(row)})
        return
    output.out.print()
    for row in rows:
        reason = f": {output.escape(row.reason)}" if row.reason else ""
        output.out.print(f"  {row.state}  {output.escape(row.key)}{reason}")


def _row_fields(row: JournalRow) -> dict[str, object]:
    return {**attrs.asdict(row), "content": row.content.hex()}


def _overview_fields(overview: JournalOverview) -> dict[str, object]:
    return {**attrs.asdict(overview), "path": str(overview.path)}


def _format_states(states: Mapping[JournalState, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in states.items() if count)


def _local_time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone()
