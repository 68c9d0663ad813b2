from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dify_kb.arguments import MIB, parse_duration, parse_size
from dify_kb.errors import ConfigError

from . import option_types
from .name_lookup import SERIES
from .option_types import OnError, OnExisting, Replace, Technique, WaitFor
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, LoadReport

    from .load_runner import LoadArguments


PER_DATASET = 10_000
"""Documents per dataset of a series: lists and searches of much larger ones become slow."""


def load(
    context: typer.Context,
    dataset: option_types.DatasetOption,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Folders and files to load, archives (.zip, .tar, .tar.gz, …), or URLs of git"
            " repositories (git+https://host/repository.git@branch#folder) and buckets (s3://, gs://,"
            " az://).",
            show_default=False,
            parser=option_types.parse_source,
        ),
    ] = None,
    create: Annotated[
        bool, typer.Option("--create", help="Create the dataset if it does not exist.")
    ] = False,
    per_dataset: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Documents per dataset if --dataset contains {n}, as 'Docs {n}': the files are"
            " spread over the datasets Docs 1, Docs 2, …; default: 10000.",
        ),
    ] = None,
    technique: Annotated[
        Technique | None,
        typer.Option(
            help="Indexing technique for --create; default: high_quality if the server has an"
            " embedding model, else economy."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Load only matching files; repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Leave out matching files, in addition to those of .difyignore files; repeatable.",
        ),
    ] = None,
    gitignore: Annotated[
        bool, typer.Option("--gitignore", help="Leave out what .gitignore files ignore, too.")
    ] = False,
    as_text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB",
            help="Send matching files with .txt appended to their name, for types that the server"
            " does not accept; repeatable.",
        ),
    ] = None,
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
    urls_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Load the URLs listed in FILE, one per line, optionally as KEY<tab>URL.",
        ),
    ] = None,
    metadata_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help="Set metadata from each file: auto (path, folder, stem, extension), path:PATTERN"
            " such as path:'{team}/{year:number}/**', front-matter, sidecar (NAME.metadata.json),"
            " table:FILE (.csv, .jsonl) or mtime; repeatable, later sources win, --metadata last.",
        ),
    ] = None,
    keep_front_matter: Annotated[
        bool,
        typer.Option(
            "--keep-front-matter",
            help="Leave the header in the documents with --metadata-from front-matter.",
        ),
    ] = False,
    metadata: option_types.MetadataOption = None,
    on_existing: Annotated[
        OnExisting,
        typer.Option(
            help="Action if a document that was not loaded with this journal has the name of a"
            " file."
        ),
    ] = "overwrite",
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum", help="Detect changed files by content; default: by size and time."
        ),
    ] = False,
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
    mode: Annotated[
        option_types.ChunkingMode | None,
        typer.Option(
            help="Chunking mode; default: custom with a chunking option below, else that"
            " of the dataset."
        ),
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=option_types.MIN_CHUNK_SIZE,
            max=option_types.MAX_CHUNK_SIZE,
            help="Maximum chunk size in characters; default: 500.",
        ),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Overlap between chunks in characters; default: a tenth of the chunk size, 50 at"
            " most.",
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Text that separates chunks; \\n is a newline, \\t a tab; default: \\n.",
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            metavar="N|LOW-HIGH",
            help="Concurrent uploads, fixed or within a range; default: tuned automatically.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="N/UNIT",
            help="Maximum upload rate: 100/min, 5/s, 1000/h; default: no limit.",
        ),
    ] = None,
    wait: Annotated[
        WaitFor,
        typer.Option(
            help="When a file counts as loaded: accepted by the server, indexed, or verified by a"
            " final check (one more request per file)."
        ),
    ] = "indexed",
    max_unindexed: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Maximum number of accepted documents not indexed yet."
        ),
    ] = 5000,
    stall_after: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="Time without indexing progress (90s, 30m, 2h) after which a document counts as"
            " stalled.",
        ),
    ] = "15m",
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Stop the load after this time (90s, 30m, 2h); default: never."
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Stop the load if more files fail; default: no limit."
        ),
    ] = None,
    errors: Annotated[
        OnError,
        typer.Option(help="collect: continue after failed files. stop: stop at the first one."),
    ] = "collect",
    max_file_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Maximum file size: 15 (MiB), 15MB, 500kB.")
    ] = "15MiB",
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Journal of the load; default: one per dataset and PATH in"
            " ~/.local/state/dify-kb.",
            parser=option_types.parse_path,
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Retry files that failed or stalled in an earlier run."
        ),
    ] = False,
    dry_run: option_types.DryRunOption = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append each result and each failed request to FILE as JSON Lines.",
            parser=option_types.parse_path,
        ),
    ] = None,
) -> None:
    """Load folders of files into a dataset.

    Each file becomes a document named after its path. Run the same command again to resume after
    an interruption, or to send only new and changed files. Ctrl-C loses nothing.

    Exit codes: 0 success, 1 error, 2 invalid options, 3 some files failed, 4 stopped by key,
    permission, plan limit or deleted dataset, 5 stopped by rate limit, outage or deadline, 6 the
    server rejects everything, 7 too many failures, 8 journal locked or damaged, 130 interrupted,
    143 terminated. After 5, 130 and 143 run the same command to resume.
    """
    from dify_kb.ingest import ScanRules
    from dify_kb.ingest.metadata.collect_metadata import MetadataCollector
    from dify_kb.ingest.pacing.rate_limit import Rate

    from .load_runner import LoadRunner
    from .log_file import open_log

    command: CommandContext = context.obj
    rule = option_types.parse_process_rule(mode, chunk_size, chunk_overlap, separator)
    bounds = None if concurrency is None else option_types.parse_range("--concurrency", concurrency)
    values = option_types.parse_pairs("--metadata", metadata or ())
    sources = [
        *option_types.parse_metadata_sources(metadata_from or (), keep_front_matter),
        values,
    ]
    MetadataCollector.create(sources)  # before a dataset is created for it
    stalled = parse_duration(stall_after, "--stall-after")
    seconds = None if deadline is None else parse_duration(deadline, "--deadline")
    if rate is not None:
        Rate.parse(rate)
    if journal is not None and not journal.parent.is_dir():
        raise ConfigError(
            f"Not a directory: {journal.parent} (--journal).",
            hint="Create it, or correct the path: with a new journal every file is compared anew.",
        )
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
    rules = ScanRules(
        include=include or ("*",),
        exclude=exclude or (),
        as_text=as_text or (),
        gitignore=gitignore,
        sidecars="sidecar" in (metadata_from or ()),
        max_file_size=parse_size(max_file_size, "--max-file-size", default_unit=MIB),
    )

    async def start(
        client: AsyncClient, targets: Sequence[Dataset], arguments: LoadArguments
    ) -> LoadReport:
        return await client.load(
            targets if SERIES in dataset else targets[0],
            arguments.source,
            include=rules.include,
            exclude=rules.exclude,
            as_text=rules.as_text,
            gitignore=rules.gitignore,
            process_rule=rule,
            metadata=sources,
            on_existing=on_existing,
            wait=wait,
            checksum=checksum,
            overwrite_archived=overwrite_archived,
            replace=replace,
            concurrency=bounds,
            rate=rate,
            max_unindexed=max_unindexed,
            stall_after=stalled,
            deadline=seconds,
            # errors="stop" would raise, which leaves no report to print.
            max_failures=0 if errors == "stop" else max_failures,
            per_dataset=per_dataset or PER_DATASET,
            max_file_size=rules.max_file_size,
            journal=journal,
            retry_failed=retry_failed,
            dry_run=dry_run,
            on_event=arguments.on_event,
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
        rules=rules,
        journal=journal,
        dry_run=dry_run,
        stops_at_first_failure=errors == "stop",
        verifies=wait == "verified",
        start_load=start,
    )
    runner.check()
    with open_log(log_file) as log:
        runner.run(log)
