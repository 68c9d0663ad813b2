"""`dify-kb sync`: sync the documents of a dataset with a source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dify_kb.arguments import parse_duration, parse_optional_duration
from dify_kb.errors import ConfigError

from . import load_option_types, option_types, sync_option_types
from .load_option_types import SharedLoadOptions
from .run_command import CommandContext

SYNC_ARGUMENTS = (
    "state",
    "id",
    "delete",
    "max_delete",
    "adopt",
    "keep_ids",
    "allow_empty",
    "delete_excluded",
    "ignore_errors",
    "respect_deletes",
    "protect_edits",
)
"""The options that are arguments of `AsyncClient.sync` as they are."""


def sync(
    context: typer.Context,
    dataset: option_types.DatasetOption,
    paths: load_option_types.SourcesArgument = None,
    create: load_option_types.CreateOption = False,
    technique: load_option_types.TechniqueOption = None,
    state: sync_option_types.StateOption = "journal",
    id: sync_option_types.IdOption = None,  # noqa: A002 -- the name of the option
    delete: sync_option_types.DeleteOption = "delete",
    empty_trash: sync_option_types.EmptyTrashOption = None,
    keep_ids: Annotated[
        bool,
        typer.Option(
            "--keep-ids",
            help="Replace documents in place: they keep their id, but are not found while the new"
            " version is indexed.",
        ),
    ] = False,
    adopt: sync_option_types.AdoptOption = False,
    max_delete: sync_option_types.MaxDeleteOption = None,
    check: sync_option_types.CheckOption = None,
    allow_empty: sync_option_types.AllowEmptyOption = False,
    delete_excluded: sync_option_types.DeleteExcludedOption = False,
    ignore_errors: Annotated[
        bool, typer.Option("--ignore-errors", help="Delete although files could not be loaded.")
    ] = False,
    respect_deletes: sync_option_types.RespectDeletesOption = False,
    protect_edits: sync_option_types.ProtectEditsOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C: sync again as files change.")
    ] = False,
    rescan: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="With --watch, also sync at this interval; default: 15m."
        ),
    ] = None,
    poll: Annotated[
        bool,
        typer.Option(
            "--poll",
            help="With --watch, look for changes every 2 s, as network shares send no events.",
        ),
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Go on until Ctrl-C: sync at this interval (1h)."),
    ] = None,
    health: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Update the time of FILE after each sync that succeeds, for health checks.",
            parser=option_types.parse_path,
        ),
    ] = None,
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
    concurrency: load_option_types.ConcurrencyOption = None,
    rate: load_option_types.RateOption = None,
    max_unindexed: load_option_types.MaxUnindexedOption = 5000,
    stall_after: load_option_types.StallAfterOption = "15m",
    deadline: load_option_types.DeadlineOption = None,
    max_failures: load_option_types.MaxFailuresOption = None,
    errors: load_option_types.ErrorsOption = "collect",
    max_file_size: load_option_types.MaxFileSizeOption = "15MiB",
    journal: load_option_types.JournalOption = None,
    retry_failed: load_option_types.RetryFailedOption = False,
    dry_run: option_types.DryRunOption = False,
    log_file: load_option_types.LogFileOption = None,
    html: option_types.HtmlOption = None,
) -> None:
    """Sync a dataset with a folder: add, update, rename and delete documents.

    Prints + new, * changed, > renamed, - deleted, ~ kept back and ! failed files; with --verbose
    also = unchanged files and ? documents of others, which are never touched. Changed files are
    replaced without a gap in search. Interrupted at any time, the next sync continues.

    Nothing is deleted if the source is missing or empty, a folder cannot be read, a file failed, or
    more than --max-delete documents would be deleted. Such a sync exits with 7.

    Exit codes: as of `load`, and 7 if documents were held back.
    """
    from .log_file import open_log
    from .sync_runner import SyncRunner

    command: CommandContext = context.obj
    arguments = parse_sync_arguments(locals())
    _check_repetition(
        watch=watch, rescan=rescan, poll=poll, every=every, is_single=dry_run, deadline=deadline
    )
    runner = SyncRunner(
        command=command,
        dataset=dataset,
        technique=technique,
        create=create,
        paths=paths or (),
        url_list=urls_from,
        rules=SharedLoadOptions.parse(locals()).rules,
        arguments=arguments,
        dry_run=dry_run,
        stops_at_first_failure=errors == "stop",
        watch=watch,
        poll=poll,
        rescan=parse_duration("15m" if rescan is None else rescan, "--rescan"),
        every=None if every is None else parse_duration(every, "--every"),
        health=health,
        html=html,
        ignored=[path for path in (journal, log_file, health, html) if path is not None],
    )
    if html is not None:
        from .benchmark_output import check_writable

        check_writable((html,))
    runner.check()
    with open_log(log_file) as log:
        runner.run(log)


def parse_sync_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `AsyncClient.sync`, from the values of a command by parameter.

    Raises:
        ConfigError: a value is invalid.
    """
    from dify_kb.sync import SyncOptions
    from dify_kb.sync.sync_options import parse_delete_limit

    try:
        parse_delete_limit(values["max_delete"])
    except ConfigError as error:
        raise ConfigError(
            f"Invalid value {values['max_delete']!r} for --max-delete.", hint=error.hint
        ) from None
    arguments = {name: values[name] for name in SYNC_ARGUMENTS if name in values}
    arguments["check"] = values["check"] or ()
    arguments["empty_trash"] = parse_optional_duration(values["empty_trash"], "--empty-trash")
    arguments |= SharedLoadOptions.parse(values).arguments
    SyncOptions.from_arguments(arguments)  # before a dataset is created for it
    return arguments


def _check_repetition(
    *,
    watch: bool,
    rescan: str | None,
    poll: bool,
    every: str | None,
    is_single: bool,
    deadline: str | None,
) -> None:
    """Check the options of a command that goes on.

    Raises:
        ConfigError: they cannot be combined, or a duration is too short.
    """
    given = {"--watch": watch, "--every": every is not None}
    modes = [option for option, is_given in given.items() if is_given]
    if len(modes) > 1:
        raise ConfigError(
            "--watch and --every cannot be combined.", hint="Pass --watch --rescan 1h."
        )
    if not watch and (rescan is not None or poll):
        raise ConfigError(
            f"{'--poll' if poll else '--rescan'} requires --watch.", hint="Pass --watch, too."
        )
    if modes and (is_single or deadline is not None):
        raise ConfigError(
            f"{modes[0]} and {'--dry-run' if is_single else '--deadline'} cannot be combined.",
            hint="Remove one of them.",
        )
    for option, value in (("--rescan", rescan), ("--every", every)):
        if value is not None and parse_duration(value, option) < 1:
            raise ConfigError(f"Invalid value {value!r} for {option}.", hint="Pass 1s or more.")
