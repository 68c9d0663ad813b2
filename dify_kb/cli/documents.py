from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import dify_kb
from dify_kb.errors import ConfigError, KnowledgeError

from . import bulk, metadata, name_lookup, option_types, output, stats
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .option_types import (
    AllOption,
    DatasetOption,
    DocumentArguments,
    DryRunOption,
    FilterOption,
    NamePatternOption,
    StatusOption,
    Technique,
    YesOption,
)
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, CreatedDocument, Dataset, Document

    SwitchDocuments = Callable[[Dataset, Sequence[str]], Awaitable[None]]

documents = typer.Typer(
    help="Manage the documents of a dataset.", no_args_is_help=True, rich_markup_mode=None
)

STDIN = "-"

DocumentArgument = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="Name or id of the document.")
]
FileArgument = Annotated[
    str | None, typer.Argument(metavar="FILE|-", help="File to upload; - is standard input.")
]
TextOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Text of the document, instead of FILE.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait until the document is indexed.")]


@documents.command("list")
def list_(
    context: typer.Context,
    dataset: DatasetOption,
    names: DocumentArguments = None,
    name: NamePatternOption = None,
    status: StatusOption = None,
    filter_: FilterOption = None,
    all_: AllOption = False,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List the documents of a dataset, newest first.

    Without a condition, all of them.
    """
    from . import document_selection

    everything = all_ or not (names or name or status or filter_)
    selection = document_selection.parse_selection(
        names, name, status, filter_, everything=everything
    )
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        await order.print_rows(
            "document",
            document_selection.iterate_documents(client, target, selection),
            {
                "name": lambda row: row.name,
                "status": lambda row: row.display_status,
                "characters": lambda row: row.word_count,
                "error": lambda row: row.error,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


@documents.command("show")
def show_(context: typer.Context, dataset: DatasetOption, name: DocumentArgument) -> None:
    """Show a document with its metadata (Dify 1.8 or later)."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        thing = await name_lookup.find_document(client, target, name)
        detail = await client.documents.get(target, thing.id)
        rows = {
            "id": detail.id,
            "name": detail.name,
            "status": detail.display_status,
            "error": detail.error,
            "chunks": detail.segment_count,
            "characters per chunk": detail.average_segment_length,
            "chunk structure": detail.doc_form,
            "created": detail.created_at,
            "updated": detail.updated_at,
            "indexed": detail.completed_at,
            "metadata": ", ".join(map(metadata.format_value, detail.doc_metadata or ())) or None,
        }
        output.print_details("document", detail, rows, json=is_json_output(context))

    run_with_client(context, main)


@documents.command("create")
def create(
    context: typer.Context,
    dataset: DatasetOption,
    file: FileArgument = None,
    text: TextOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the document; default: the file's name. Required for a text.",
        ),
    ] = None,
    technique: Annotated[
        Technique | None,
        typer.Option(help="Indexing technique, required if the dataset does not have one."),
    ] = None,
    wait: WaitOption = False,
) -> None:
    """Create a document, or replace the one with its name.

    For many documents use `dify-kb load`.
    """
    source = _read_source(file, text)

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        if isinstance(source, Path):
            created = await client.documents.create_by_file(
                target, source, name=name, indexing_technique=technique or dify_kb.UNSET
            )
        else:
            created = await client.documents.create_by_text(
                target, _require_name(name), source, indexing_technique=technique or dify_kb.UNSET
            )
        await _report_created(context, client, target, created, wait=wait)

    run_with_client(context, main)


@documents.command("update")
def update(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentArgument,
    file: FileArgument = None,
    text: TextOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the document; default: the file's name, with --text unchanged.",
        ),
    ] = None,
    wait: WaitOption = False,
) -> None:
    """Replace the content of a document.

    Edits of its chunks are lost.
    """
    source = _read_source(file, text)

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        thing = await name_lookup.find_document(client, target, document)
        if isinstance(source, Path):
            created = await client.documents.update_by_file(target, thing.id, source, name=name)
        else:
            created = await client.documents.update_by_text(
                target, thing.id, name=_require_name(name or thing.name), text=source
            )
        await _report_created(context, client, target, created, wait=wait)

    run_with_client(context, main)


@documents.command("rename")
def rename(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentArgument,
    name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="New name; keep the extension.")],
    wait: WaitOption = False,
) -> None:
    """Rename a document (Dify 1.8 or later, except 1.12).

    It keeps its id and metadata, but the server indexes it again: until then, searches do not find
    it, and edits of its chunks are lost.
    """

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        thing = await name_lookup.find_document(client, target, document)
        created = await client.documents.rename(target, thing.id, name)
        await _report_created(context, client, target, created, wait=wait)

    run_with_client(context, main)


def _read_source(file: str | None, text: str | None) -> Path | str:
    """Return the path of the file, or the text of --text or standard input."""
    if (file is None) == (text is None):
        raise ConfigError(
            "No content for the document."
            if file is None
            else "FILE and --text cannot be combined.",
            hint="Pass a file, - for standard input, or --text.",
        )
    if file is None:
        return text or ""
    return sys.stdin.read() if file == STDIN else option_types.parse_path(file)


def _require_name(name: str | None) -> str:
    if not name:
        raise ConfigError("No name for the document.", hint="Pass --name.")
    return name


async def _report_created(
    context: typer.Context,
    client: AsyncClient,
    target: Dataset,
    created: CreatedDocument,
    *,
    wait: bool,
) -> None:
    document: Document = created.document
    if wait:
        (document,) = await client.documents.wait(target, [created])
    if is_json_output(context):
        output.print_json(
            {"type": "document", **output.to_fields(document), "batch": created.batch}
        )
    else:
        _print_created(document, created.batch)
    if wait:
        _check_indexed(document)


def _print_created(document: Document, batch: str) -> None:
    rows = {
        "id": document.id,
        "name": document.name,
        "status": document.indexing_status,
        "error": document.error,
        "characters": document.word_count,
        "batch": batch,
    }
    output.print_table(("", ""), rows.items())


def _check_indexed(document: Document) -> None:
    """Check that searches can find the document.

    Raises:
        KnowledgeError: indexing failed, indexed nothing, or makes no progress.
    """
    match document.indexing_status:
        case dify_kb.IndexingStatus.ERROR:
            raise KnowledgeError(
                f"Indexing of {document.name!r} failed: {document.error or 'no reason given'}",
                hint="Correct the cause and create the document again; it keeps its id.",
            )
        case dify_kb.IndexingStatus.COMPLETED if document.word_count == 0:
            raise KnowledgeError(
                f"{document.name!r}: {stats.NOTHING_INDEXED}.",
                hint="Check that the document contains text; scanned pages are images.",
            )
        case status if not status.is_final:
            raise KnowledgeError(
                f"Indexing of {document.name!r} makes no progress (status {status}).",
                hint="Run `dify-kb stats` later to see whether it is stuck.",
            )


@documents.command("delete")
def delete(
    context: typer.Context,
    dataset: DatasetOption,
    names: DocumentArguments = None,
    name: NamePatternOption = None,
    status: StatusOption = None,
    filter_: FilterOption = None,
    all_: AllOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Delete documents, selected by name, id or condition.

    Asks for confirmation if there are several. The server refuses to delete archived documents.
    """
    from . import document_selection

    selection = document_selection.parse_selection(names, name, status, filter_, everything=all_)

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        things = await document_selection.select_documents(client, target, selection)
        reporter = bulk.ChangeReporter("document", "deleted", json=is_json_output(context))
        if dry_run:
            return reporter.report_dry_run(things)
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "document"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things, lambda thing: client.documents.delete(target, thing.id), reporter
        )

    run_with_client(context, main)


def _add_switch_command(
    verb: str, past_tense: str, call: Callable[[AsyncClient], SwitchDocuments], help_text: str
) -> None:
    """Add a command that changes the status of documents to `past_tense`."""

    @documents.command(verb, help=help_text)
    def switch(
        context: typer.Context,
        dataset: DatasetOption,
        names: DocumentArguments = None,
        name: NamePatternOption = None,
        status: StatusOption = None,
        filter_: FilterOption = None,
        all_: AllOption = False,
        dry_run: DryRunOption = False,
    ) -> None:
        from . import document_selection

        selection = document_selection.parse_selection(
            names, name, status, filter_, everything=all_
        )

        async def main(client: AsyncClient) -> int:
            target = await name_lookup.find_dataset(client, dataset)
            things = await document_selection.select_documents(client, target, selection)
            reporter = bulk.ChangeReporter("document", past_tense, json=is_json_output(context))
            if dry_run:
                return reporter.report_dry_run(things)

            async def work(batch: Sequence[ResourceRef]) -> None:
                await call(client)(target, [thing.id for thing in batch])

            return await bulk.change_in_batches(things, work, reporter)

        run_with_client(context, main)


_add_switch_command(
    "enable",
    "enabled",
    lambda client: client.documents.enable,
    "Include documents in search again (Dify 1.8 or later).",
)
_add_switch_command(
    "disable",
    "disabled",
    lambda client: client.documents.disable,
    "Exclude documents from search (Dify 1.8 or later).\n\n"
    "The server refuses documents that are not indexed yet.",
)
_add_switch_command(
    "archive",
    "archived",
    lambda client: client.documents.archive,
    "Archive documents (Dify 1.8 or later).\n\n"
    "Archived documents are excluded from search and protected from deletion.",
)
_add_switch_command(
    "unarchive",
    "unarchived",
    lambda client: client.documents.unarchive,
    "Restore archived documents (Dify 1.8 or later).",
)
