from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from dify_kb import AsyncClient, Dataset, Document, DocumentCreated, IndexingStatus
from dify_kb.errors import ConfigError, KnowledgeError
from dify_kb.models import UNSET, MetadataType
from dify_kb.wire import codec

from . import figures, find, show, words
from .act import act, json
from .app import app
from .datasets import Technique
from .options import InDataset, Status

documents = typer.Typer(
    help="The documents of a dataset.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(documents, name="documents")

STDIN = "-"

Named = Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the document.")]
Text = Annotated[str | None, typer.Option(help="The text itself, instead of a file.")]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is indexed.")]


@documents.command("list")
def list_(
    context: typer.Context,
    dataset: InDataset,
    keyword: Annotated[
        str | None, typer.Option(help="A part of the name; % and _ are wildcards.")
    ] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only these; servers before 1.11 list all.")
    ] = None,
) -> None:
    """List the documents of a dataset, the newest first."""

    async def main(client: AsyncClient) -> None:
        where = await find.dataset(client, dataset)
        found = client.documents.iter(where, keyword=keyword or UNSET, status=status or UNSET)
        await show.rows(
            "document",
            found,
            {
                "name": lambda row: row.name,
                "status": lambda row: row.display_status,
                "characters": lambda row: row.word_count,
                "error": lambda row: row.error,
                "id": lambda row: row.id,
            },
            json=json(context),
        )

    act(context, main)


@documents.command("show")
def show_(context: typer.Context, dataset: InDataset, name: Named) -> None:
    """Show one document in full; since Dify 1.8."""

    async def main(client: AsyncClient) -> None:
        where = await find.dataset(client, dataset)
        thing = await find.document(client, where, name)
        found = await client.documents.get(where, thing.id)
        rows = {
            "id": found.id,
            "name": found.name,
            "status": found.display_status,
            "error": found.error,
            "chunks": found.segment_count,
            "characters a chunk": found.average_segment_length,
            "chunks are": found.doc_form,
            "created": found.created_at,
            "updated": found.updated_at,
            "indexed": found.completed_at,
            "metadata": ", ".join(map(_label, found.doc_metadata or ())) or None,
        }
        show.one("document", found, rows, json=json(context))

    act(context, main)


@documents.command("create")
def create(
    context: typer.Context,
    dataset: InDataset,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE|-", help="What to send; - is stdin.")
    ] = None,
    text: Text = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it; else as the file is called.")
    ] = None,
    technique: Annotated[
        Technique | None, typer.Option(help="For the first document of a dataset without one.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Create one document, or replace the one of its name.

    `load` is for many.
    """
    source = _source(file, text)

    async def main(client: AsyncClient) -> None:
        where = await find.dataset(client, dataset)
        if isinstance(source, Path):
            made = await client.documents.create_by_file(
                where, source, name=name, indexing_technique=technique or UNSET
            )
        else:
            made = await client.documents.create_by_text(
                where, _needed(name), source, indexing_technique=technique or UNSET
            )
        await _tell(context, client, where, made, wait=wait)

    act(context, main)


@documents.command("update")
def update(
    context: typer.Context,
    dataset: InDataset,
    document: Named,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE|-", help="What to send; - is stdin.")
    ] = None,
    text: Text = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it; else as before, or as the file.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Give a document other content; edits of its chunks are lost."""
    source = _source(file, text)

    async def main(client: AsyncClient) -> None:
        where = await find.dataset(client, dataset)
        thing = await find.document(client, where, document)
        if isinstance(source, Path):
            made = await client.documents.update_by_file(where, thing.id, source, name=name)
        else:
            made = await client.documents.update_by_text(
                where, thing.id, name=_needed(name or thing.name), text=source
            )
        await _tell(context, client, where, made, wait=wait)

    act(context, main)


def _label(entry: Mapping[str, object]) -> str:
    """Write a metadata value; a time, which servers tell in seconds or as their text, as a date."""
    value = entry.get("value")
    seconds = words.number(str(value)) if entry.get("type") == MetadataType.TIME else None
    if seconds is not None:
        with suppress(ValueError, OverflowError, OSError):  # no time that a calendar has
            value = datetime.fromtimestamp(seconds, UTC)
    shown = show.cell(value) if value is None or isinstance(value, datetime) else value
    return f"{entry['name']}={shown}"


def _source(file: str | None, text: str | None) -> Path | str:
    """Take a path, or the text that was given or comes from stdin."""
    if (file is None) == (text is None):
        raise ConfigError(
            "There is nothing to send." if file is None else "Both a file and --text are given.",
            hint="Pass a file, - for stdin, or --text.",
        )
    if file is None:
        return text or ""
    return sys.stdin.read() if file == STDIN else words.path(file)


def _needed(name: str | None) -> str:
    if not name:
        raise ConfigError("The text has no name.", hint="Pass --name.")
    return name


async def _tell(
    context: typer.Context,
    client: AsyncClient,
    where: Dataset,
    made: DocumentCreated,
    *,
    wait: bool,
) -> None:
    document: Document = made.document
    if wait:
        (document,) = await client.documents.wait(where, [made])
    if json(context):
        show.line({"type": "document", **codec.fields(document), "batch": made.batch})
    else:
        _print(document, made.batch)
    if wait:
        _check_indexed(document)


def _print(document: Document, batch: str) -> None:
    rows = {
        "id": document.id,
        "name": document.name,
        "status": document.indexing_status,
        "error": document.error,
        "characters": document.word_count,
        "batch": batch,
    }
    show.table(("", ""), rows.items())


def _check_indexed(document: Document) -> None:
    """Tell a document that no search will find.

    Raises:
        KnowledgeError: it failed, nothing of it was indexed, or it does not get on.
    """
    match document.indexing_status:
        case IndexingStatus.ERROR:
            raise KnowledgeError(
                f"{document.name!r} was not indexed: {document.error or 'no reason given'}",
                hint="Create it again once that is mended; it keeps its id.",
            )
        case IndexingStatus.COMPLETED if not document.word_count:
            raise KnowledgeError(
                f"{document.name!r} is {figures.EMPTY}.",
                hint="Is there text in it? Scanned pages are pictures.",
            )
        case status if not status.final:
            raise KnowledgeError(
                f"{document.name!r} is still {status}, and does not get on.",
                hint="It may come yet; `dify-kb stats` tells what is stuck.",
            )
