from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated

import anyio.to_thread
import typer

from dify_kb.arguments import parse_duration
from dify_kb.errors import ConfigError, JournalError, KnowledgeError

from . import bulk, completion, option_types, output
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb.ingest.journal.read_journal import JournalOverview

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
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """Show all journals, or one with its runs and failures.

    States of a file: pending (not sent), unknown (the upload started, its outcome is not known),
    accepted (not indexed yet), loaded (indexed), failed, stalled (no indexing progress), emptied
    (replacing it failed, its document has no chunks), trashed (its file is gone; a sync has taken
    its document out of search). Works while a load is running.

    --sort and --limit apply to the journals (used, source, dataset, files, size), or to the files
    of --state (name, size).
    """
    from dify_kb.ingest.journal import read_journal

    from . import journal_output

    command: CommandContext = context.obj
    order = RowOrder(sort, limit)
    found = _find_journals(command, name, dataset)
    if len(found) != 1 or (name is None and dataset is None):
        if state is not None or failures:
            raise ConfigError(
                "--state and --failures require one journal.",
                hint="Pass its name as `dify-kb journal show` prints it.",
            )
        raise typer.Exit(journal_output.print_all(found, order, json=command.json))
    (path,) = found
    overview = read_journal.read_overview(path)
    if command.json:
        journal_output.print_overview(overview, json=True)
    else:
        journal_output.print_runs(overview)
    if state is not None:
        stored = next(one for one, word in journal_output.STATE_NAMES.items() if word == state)
        rows = read_journal.iter_rows(path, state=stored)
        journal_output.print_files(
            order.arrange(rows, journal_output.FILE_COLUMNS), json=command.json
        )
    journal_output.print_failures(overview, json=command.json, list_all=failures or command.json)


@journal.command()
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="JOURNAL", help=f"{NAME_HELP}.")],
    dataset: JournalDatasetOption = None,
) -> None:
    """Print the files of a journal as JSON Lines."""
    from dify_kb.ingest.journal import read_journal

    from .journal_output import row_fields

    found = _find_journals(context.obj, name, dataset)
    if len(found) > 1:
        raise _ambiguity(found, name)
    for row in read_journal.iter_rows(found[0]):
        output.print_json(row_fields(row))


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
        bool,
        typer.Option(
            "--gone", help="Only journals of folders or emulator files that no longer exist."
        ),
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
    """Return whether no folder of the source exists, or the embedded server's file does not."""
    scheme, _, file = overview.server.partition(":")
    if scheme == "emulator" and not Path(file).exists():
        return True
    return bool(overview.roots) and not any(
        "://" in root or Path(root).exists() for root in overview.roots
    )


def _label(overview: JournalOverview) -> str:
    from .journal_output import format_source

    return f"{format_source(overview)} in {overview.dataset_name or overview.dataset}"
