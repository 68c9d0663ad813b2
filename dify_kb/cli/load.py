from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dify_kb.errors import ConfigError

from . import load_option_types, option_types
from .load_option_types import SharedLoadOptions
from .name_lookup import SERIES
from .option_types import OnExisting, Replace, WaitFor
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, LoadReport

    from .load_runner import LoadArguments


PER_DATASET = 10_000
"""Documents per dataset of a series: lists and searches of much larger ones become slow."""


def load(
    context: typer.Context,
    dataset: option_types.DatasetOption,
    paths: load_option_types.SourcesArgument = None,
    create: load_option_types.CreateOption = False,
    per_dataset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Documents per dataset if --dataset contains {n}, as 'Docs {n}': the files are"
            " spread over the datasets Docs 1, Docs 2, …; default: 10000.",
        ),
    ] = None,
    technique: load_option_types.TechniqueOption = None,
    include: load_option_types.IncludeOption = None,
    exclude: load_option_types.ExcludeOption = None,
    gitignore: load_option_types.GitignoreOption = False,
    as_text: load_option_types.AsTextOption = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Load only the files of PATH (default: the current folder) that FILE lists, one"
            " per line, as find and git diff print them. Deleted files are skipped.",
        ),
    ] = None,
    null: Annotated[
        bool,
        typer.Option(
            "--null", "-0", help="The paths of --files-from are separated by NUL (find -print0)."
        ),
    ] = False,
    urls_from: load_option_types.UrlsFromOption = None,
    metadata_from: load_option_types.MetadataFromOption = None,
    keep_front_matter: load_option_types.KeepFrontMatterOption = False,
    metadata: option_types.MetadataOption = None,
    on_existing: Annotated[
        OnExisting,
        typer.Option(
            help="Action if a document that was not loaded with this journal has the name of a"
            " file."
        ),
    ] = "overwrite",
    checksum: load_option_types.ChecksumOption = False,
    overwrite_archived: Annotated[
        bool,
        typer.Option(
            "--overwrite-archived",
            help="Replace archived documents and archive them again; default: skip them.",
        ),
    ] = False,
    replace: Annotated[
        Replace,
        typer.Option(
            help="How a changed file replaces its document. in_place: the document keeps its id,"
            " is not found while it is indexed, and is empty if that fails. swap: the old document"
            " is deleted once the new one, with a new id, is indexed; no gap in search."
        ),
    ] = "in_place",
    mode: load_option_types.ModeOption = None,
    chunk_size: load_option_types.ChunkSizeOption = None,
    chunk_overlap: load_option_types.ChunkOverlapOption = None,
    separator: load_option_types.SeparatorOption = None,
    concurrency: load_option_types.ConcurrencyOption = None,
    rate: load_option_types.RateOption = None,
    wait: Annotated[
        WaitFor,
        typer.Option(
            help="When a file counts as loaded: accepted by the server, indexed, or verified by a"
            " final check (one more request per file)."
        ),
    ] = "indexed",
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
    """Load folders of files into a dataset.

    Each file becomes a document named after its path. Run the same command again to resume after
    an interruption, or to send only new and changed files. Ctrl-C loses nothing.

    Exit codes: 0 success, 1 error, 2 invalid options, 3 some files failed, 4 stopped by key,
    permission, plan limit or deleted dataset, 5 stopped by rate limit, outage or deadline, 6 the
    server rejects everything, 7 too many failures, 8 journal locked or damaged, 130 interrupted,
    143 terminated. After 5, 130 and 143 run the same command to resume.
    """
    from .load_runner import LoadRunner
    from .log_file import open_log

    command: CommandContext = context.obj
    shared = SharedLoadOptions.parse(locals())
    if replace == "swap" and wait == "accepted":  # before a dataset is created for it
        raise ConfigError(
            "--replace swap requires --wait indexed or verified.",
            hint="The old version can be deleted only once the new one is indexed.",
        )
    if SERIES not in dataset and per_dataset is not None:
        raise ConfigError(
            "--per-dataset requires a --dataset with {n}.",
            hint="Pass a name such as 'Docs {n}'.",
        )
    if SERIES in dataset and journal is not None:
        raise ConfigError(
            "--journal cannot be shared by several datasets.",
            hint="Omit --journal: each dataset has its own.",
        )

    async def start(
        client: AsyncClient, targets: Sequence[Dataset], arguments: LoadArguments
    ) -> LoadReport:
        return await client.load(
            targets if SERIES in dataset else targets[0],
            arguments.source,
            on_existing=on_existing,
            wait=wait,
            overwrite_archived=overwrite_archived,
            replace=replace,
            per_dataset=per_dataset or PER_DATASET,
            dry_run=dry_run,
            on_event=arguments.on_event,
            **shared.arguments,
        )

    runner = LoadRunner(
        command=command,
        dataset=dataset,
        per_dataset=per_dataset or PER_DATASET,
        technique=technique,
        create=create,
        paths=paths or (),
        list_file=files_from,
        url_list=urls_from,
        null=null,
        rules=shared.rules,
        journal=journal,
        dry_run=dry_run,
        stops_at_first_failure=errors == "stop",
        verifies=wait == "verified",
        html=html,
        start_load=start,
    )
    if html is not None:
        from .benchmark_output import check_writable

        check_writable((html,))
    runner.check()
    with open_log(log_file) as log:
        runner.run(log)
