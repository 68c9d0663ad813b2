"""`dify-kb diff`: show what a sync would change, or compare two datasets or archives."""

from __future__ import annotations

from typing import Annotated

import typer

from . import compare, completion, load_option_types, option_types, sync_option_types
from .load_option_types import SharedLoadOptions
from .run_command import CommandContext
from .sync import parse_sync_arguments


def diff(
    context: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH|DATASET|ARCHIVE",
            help="Folders, files or URLs to compare with --dataset, as for `sync`; or, without"
            " --dataset, two datasets, PROFILE:NAME or archives to compare with each other.",
            show_default=False,
            parser=option_types.parse_source,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME|ID",
            help="Name or id of the dataset, or PROFILE:NAME.",
            envvar=option_types.DATASET_VARIABLE,
            show_default=False,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if there are differences.")
    ] = False,
    state: sync_option_types.StateOption = "journal",
    id: sync_option_types.IdOption = None,  # noqa: A002 -- the name of the option
    delete: sync_option_types.DeleteOption = "delete",
    empty_trash: sync_option_types.EmptyTrashOption = None,
    adopt: sync_option_types.AdoptOption = False,
    max_delete: sync_option_types.MaxDeleteOption = None,
    check: sync_option_types.CheckOption = None,
    allow_empty: sync_option_types.AllowEmptyOption = False,
    delete_excluded: sync_option_types.DeleteExcludedOption = False,
    respect_deletes: sync_option_types.RespectDeletesOption = False,
    protect_edits: sync_option_types.ProtectEditsOption = False,
    include: load_option_types.IncludeOption = None,
    exclude: load_option_types.ExcludeOption = None,
    gitignore: load_option_types.GitignoreOption = False,
    as_text: load_option_types.AsTextOption = None,
    urls_from: load_option_types.UrlsFromOption = None,
    metadata_from: load_option_types.MetadataFromOption = None,
    keep_front_matter: load_option_types.KeepFrontMatterOption = False,
    metadata: option_types.MetadataOption = None,
    checksum: load_option_types.ChecksumOption = False,
    mode: load_option_types.ModeOption = None,
    chunk_size: load_option_types.ChunkSizeOption = None,
    chunk_overlap: load_option_types.ChunkOverlapOption = None,
    separator: load_option_types.SeparatorOption = None,
    max_file_size: load_option_types.MaxFileSizeOption = "15MiB",
    journal: load_option_types.JournalOption = None,
    retry_failed: load_option_types.RetryFailedOption = False,
) -> None:
    """Show what a sync would change, or compare two datasets or archives.

    With --dataset, shows what `sync` with the same options would change: + new, * changed,
    > renamed, - deleted, ~ kept back and ! unreadable files; with --verbose also = unchanged files
    and ? documents of others. Nothing is changed.

    Exit codes: 0 success, 1 error, differences of two datasets or archives or, with --exit-code, of
    PATH, 2 invalid options, 3 files that cannot be read, 7 missing or empty source.
    """
    from .log_file import LoadLog
    from .sync_runner import SyncRunner

    command: CommandContext = context.obj
    operands = paths or []
    if not _is_typed(context, "dataset") and compare.is_comparison(operands):
        compare.run_comparison(command, *operands)
    runner = SyncRunner(
        command=command,
        dataset=option_types.select_dataset(context, dataset or ""),
        paths=operands,
        url_list=urls_from,
        rules=SharedLoadOptions.parse(locals()).rules,
        arguments=parse_sync_arguments(locals()),
        dry_run=True,
        is_diff=True,
        fails_if_different=exit_code,
    )
    runner.check()
    runner.run(LoadLog(None))


def _is_typed(context: typer.Context, name: str) -> bool:
    """Return whether an option is on the command line, not in the environment."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
