from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dify_kb import AsyncClient, Dataset, LoadReport
from dify_kb.ingest import OnError, OnExisting, Rules, Wait
from dify_kb.models import MAX_FILE_SIZE

from . import chunking_options, log, words
from .app import Session, app
from .datasets import Technique
from .load_runner import LoadArguments, LoadRunner
from .load_summary import MIB


@app.command()
def load(
    context: typer.Context,
    dataset: Annotated[str, typer.Option(metavar="NAME|ID", help="Name or id of the dataset.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Folders and files to load.", show_default=False),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Make it if there is none.")] = False,
    technique: Annotated[
        Technique | None,
        typer.Option(
            help="For --create; else high_quality where the server has an embedding model."
        ),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Only these; may be repeated.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="GLOB", help="Not these; may be repeated.")
    ] = None,
    as_text: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Send these as .txt: the server refuses their type."),
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="Load what is listed, one path per line, relative to PATH (one folder; else the"
            " current one).",
        ),
    ] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="The list is separated by NUL, as find -print0.")
    ] = False,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TEXT", help="Set on each document; NAME:=2024 sets a number. Repeatable."
        ),
    ] = None,
    on_existing: Annotated[
        OnExisting,
        typer.Option(help="What to do where another document has the name."),
    ] = "overwrite",
    mode: Annotated[
        chunking_options.Mode | None, typer.Option(help="How to cut; else as the dataset does it.")
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Characters of a chunk at most, 50 to 4000 (custom)."),
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(metavar="N", help="Characters that neighbours share (custom).")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text to cut at; \\n is a new line (custom).")
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(metavar="N|LOW-HIGH", help="Uploads at once; else found by itself."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/UNIT", help="Uploads in a time at most: 100/min, 5/s, 1000/h."),
    ] = None,
    wait: Annotated[
        Wait,
        typer.Option(
            help="indexed follows each document to its end; accepted does not; verified looks at"
            " each once more."
        ),
    ] = "indexed",
    max_unindexed: Annotated[
        int, typer.Option(metavar="N", min=1, help="Uploads wait while so many are not indexed.")
    ] = 5000,
    stall_after: Annotated[
        str, typer.Option(metavar="TIME", help="Without progress for so long, it stalled.")
    ] = "15m",
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after 90, 90s, 30m, 2h; resumable."),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="More failed files than this stop the load."),
    ] = None,
    errors: Annotated[
        OnError, typer.Option(help="stop ends the load at the first file that fails.")
    ] = "collect",
    max_file_size: Annotated[
        int, typer.Option(metavar="N", min=1, help="MiB; larger files are not sent.")
    ] = MAX_FILE_SIZE // MIB,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What remembers the load; else one of each dataset and PATH in"
            " ~/.local/state/dify-kb.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Send again what failed in an earlier run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; show what would be done.")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Append each result and each failed request, as JSON Lines."
        ),
    ] = None,
) -> None:
    """Load folders of files into a dataset.

    Each file becomes a document named after its path. The same command again goes on where the
    last one ended, and sends only what is new or changed. Ctrl-C loses nothing.

    Exit codes: 0 all well, 3 some files failed, 4 key, permission or plan limit, 5 stopped for
    now, 6 the server rejects everything, 7 too many failures, 8 journal locked or damaged, 130
    interrupted, 143 terminated. After 5, 130 and 143 the same command resumes.
    """
    session: Session = context.obj
    rule = chunking_options.process_rule(mode, chunk_size, chunk_overlap, separator)
    bounds = None if concurrency is None else words.bounds("--concurrency", concurrency)
    values = words.values("--metadata", metadata or ())
    stalled = words.seconds("--stall-after", stall_after)
    seconds = None if deadline is None else words.seconds("--deadline", deadline)
    rules = Rules(
        include=include or ("*",),
        exclude=exclude or (),
        as_text=as_text or (),
        max_file_size=max_file_size * MIB,
    )

    async def start(client: AsyncClient, where: Dataset, arguments: LoadArguments) -> LoadReport:
        return await client.load(
            where,
            arguments.source,
            include=rules.include,
            exclude=rules.exclude,
            as_text=rules.as_text,
            process_rule=rule,
            metadata=values or None,
            on_existing=on_existing,
            wait=wait,
            concurrency=bounds,
            rate=rate,
            max_unindexed=max_unindexed,
            stall_after=stalled,
            deadline=seconds,
            # errors="stop" would raise, and then there were no report to show.
            max_failures=0 if errors == "stop" else max_failures,
            max_file_size=rules.max_file_size,
            journal=journal,
            retry_failed=retry_failed,
            dry_run=dry_run,
            on_event=arguments.on_event,
        )

    runner = LoadRunner(
        session=session,
        dataset=dataset,
        technique=technique,
        create=create,
        paths=paths or (),
        list_file=files_from,
        null=null,
        rules=rules,
        dry_run=dry_run,
        first_failure=errors == "stop",
        verifies=wait == "verified",
        start=start,
    )
    with log.opened(log_file) as written:
        runner.run(written)
