from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import attrs
import typer
from rich.console import Console

from dify_kb import (
    AsyncClient,
    Dataset,
    ItemResult,
    LoadReport,
    ModelRef,
    ModelType,
    Outcome,
    ProcessRule,
    Progress,
)
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.ingest import LoadEvent, OnExisting, Wait, roots_of
from dify_kb.models import MAX_FILE_SIZE, UNSET, Unset

from . import find, progress, show
from .app import Session, app
from .datasets import Technique

LISTED = 20
"""Failures that people are shown; programs get all."""

MIB = 2**20

Mode = Literal["automatic", "custom"]


@app.command()
def load(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Folders and files to load.")],
    dataset: Annotated[str, typer.Option(help="Name or id of the dataset.")],
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
    on_existing: Annotated[
        OnExisting, typer.Option(help="What to do where a document has the name.")
    ] = "overwrite",
    mode: Annotated[
        Mode | None, typer.Option(help="How to cut; else as the dataset does it.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Characters of a chunk at most, 50 to 4000 (custom).")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(help="Characters that neighbours share (custom).")
    ] = None,
    separator: Annotated[
        str | None, typer.Option(help="Text to cut at; \\n is a new line (custom).")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Uploads at once.")] = None,
    wait: Annotated[
        Wait, typer.Option(help="indexed follows each document to its end; accepted does not.")
    ] = "indexed",
    max_file_size: Annotated[
        int, typer.Option(min=1, help="MiB; larger files are not sent.")
    ] = MAX_FILE_SIZE // MIB,
) -> None:
    """Load folders of files into a dataset.

    Each file becomes a document named after its path; loading again replaces it. Exit codes: 0
    all well, 3 some files failed, 4 key, permission or plan limit, 5 stopped for now, run it
    again later.
    """
    session: Session = context.obj
    rule = _rule(mode, chunk_size, chunk_overlap, separator)
    roots_of(paths)  # a wrong path is told before a dataset is created for it

    async def main() -> int:
        async with session.client(concurrency=concurrency) as client:
            where = await _dataset(client, dataset, technique, create=create)
            with progress.display(quiet=session.quiet, plain=session.verbose) as display:

                def listen(event: LoadEvent) -> None:
                    if isinstance(event, Progress):
                        display(event)
                    elif session.json:
                        show.line({"type": "item", **_fields(event)})

                report = await client.load(
                    where,
                    paths,
                    include=include or ("*",),
                    exclude=exclude or (),
                    as_text=as_text or (),
                    process_rule=rule,
                    on_existing=on_existing,
                    wait=wait,
                    concurrency=concurrency,
                    max_file_size=max_file_size * MIB,
                    on_event=listen,
                )
        return _finish(session, report, paths)

    session.run(main)


async def _dataset(
    client: AsyncClient, name: str, technique: Technique | None, *, create: bool
) -> Dataset:
    if not create:
        return await find.dataset(client, name)
    found = await find.maybe_dataset(client, name)
    if found is not None:
        return found
    embedding: ModelRef | Unset = UNSET
    if technique is None:
        technique, embedding = await _best(client)
    made = await client.datasets.create(name, indexing_technique=technique, embedding=embedding)
    model = f" with {embedding.provider}:{embedding.model}" if embedding else ""
    show.err.print(f"Created the dataset {show.printable(name)} ({technique}{model}).")
    return made


async def _best(client: AsyncClient) -> tuple[Technique, ModelRef | Unset]:
    """Choose high quality where the server has an embedding model."""
    providers = await client.workspace.models(ModelType.TEXT_EMBEDDING)
    refs = [ref for provider in providers for ref in provider.refs()]
    return ("high_quality", refs[0]) if refs else ("economy", UNSET)


def _rule(
    mode: Mode | None, size: int | None, overlap: int | None, separator: str | None
) -> ProcessRule | None:
    given = {"--chunk-size": size, "--chunk-overlap": overlap, "--separator": separator}
    custom = [option for option, value in given.items() if value is not None]
    if mode == "automatic":
        if custom:
            raise ConfigError(
                f"{custom[0]} does not go with --mode automatic.", hint="Leave one of them out."
            )
        return ProcessRule.automatic()
    if mode is None and not custom:
        return None
    size = 500 if size is None else size
    return ProcessRule.custom(
        max_tokens=size,
        chunk_overlap=min(50, size // 10) if overlap is None else overlap,
        separator="\n" if separator is None else _unescaped(separator),
    )


def _unescaped(separator: str) -> str:
    return separator.replace("\\n", "\n").replace("\\t", "\t")


def _finish(session: Session, report: LoadReport, paths: list[Path]) -> int:
    if session.json:
        show.line({"type": "report", **report.to_dict()})
    if not report.found:
        places = ", ".join(show.printable(str(path)) for path in paths)
        raise KnowledgeError(
            f"There is nothing to load in {places}.",
            hint="Check the path, --include and --exclude; hidden files need an --include.",
        )
    console = show.err if session.json else show.out
    if not session.quiet:
        _summary(console, report)
    return report.exit_code


def _summary(console: Console, report: LoadReport) -> None:
    counts = {outcome: getattr(report, outcome) for outcome in Outcome}
    console.print(
        f"{report.found:,} files found in {report.seconds:.1f} s:"
        f" {', '.join(f'{count:,} {name}' for name, count in counts.items() if count)}."
    )
    console.print(
        f"{report.bytes / MIB:,.1f} MiB uploaded, {report.goodput:.1f} documents/s,"
        f" {report.requests:,} requests, {report.retries:,} retries."
    )
    for result in itertools.islice(report.failures(), LISTED):
        reason = show.printable(result.reason or "")
        console.print(f"  {result.outcome}  {show.printable(result.key)}: {reason}")
    more = report.failed + report.stalled + report.unknown + report.pending - LISTED
    if more > 0:
        console.print(f"  … and {more:,} more; --json lists all.")
    if report.stopped:
        show.err.print(f"error: The load stopped ({report.stopped}): {report.stop_message}")
        show.err.print("next:  Mend that, then run the same command again with --on-existing skip.")


def _fields(result: ItemResult) -> dict[str, object]:
    return attrs.asdict(result)
