from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import dify_kb
from dify_kb.errors import KnowledgeError

from . import bulk, name_lookup, output
from .command_line import format_command_line
from .list_options import LimitOption, RowOrder, SortOption
from .option_types import (
    ContainsOption,
    DatasetOption,
    DocumentOption,
    SegmentOption,
    YesOption,
)
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, ChildChunk

child_chunks = typer.Typer(
    help="Manage the child chunks of a chunk.", no_args_is_help=True, rich_markup_mode=None
)

ChildChunkArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the child chunk.")]
ChildChunkArguments = Annotated[
    list[str], typer.Argument(metavar="ID", help="Ids of child chunks.")
]
TextArgument = Annotated[str, typer.Argument(metavar="TEXT", help="Text of the child chunk.")]


@child_chunks.command("list")
def list_(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentOption,
    contains: ContainsOption = None,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List the child chunks of a chunk, in order."""
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        parents = await _find_parents(client, dataset, document)
        chunks = client.child_chunks.iter(*parents, segment, keyword=contains or dify_kb.UNSET)
        await order.print_rows(
            "child_chunk",
            chunks,
            {
                "position": lambda row: row.position,
                "text": lambda row: output.shorten(row.content),
                "type": lambda row: row.type,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


@child_chunks.command("show")
def show_(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentOption,
    id_: ChildChunkArgument,
) -> None:
    """Show a child chunk.

    Lists the child chunks of the chunk to find it.
    """

    async def main(client: AsyncClient) -> None:
        parents = await _find_parents(client, dataset, document)
        async for row in client.child_chunks.iter(*parents, segment):
            if row.id == id_:
                return _print_child_chunk(context, row)
        place = ("--dataset", dataset, "--document", document, "--segment", segment)
        raise KnowledgeError(
            f"Child chunk not found: {id_!r}.",
            hint=f"Run `{format_command_line(('child-chunks', 'list', *place))}` to see the child"
            " chunks of the chunk.",
        )

    run_with_client(context, main)


@child_chunks.command("create")
def create(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentOption,
    text: TextArgument,
) -> None:
    """Add a child chunk to a chunk."""

    async def main(client: AsyncClient) -> None:
        parents = await _find_parents(client, dataset, document)
        _print_child_chunk(context, await client.child_chunks.create(*parents, segment, text))

    run_with_client(context, main)


@child_chunks.command("update")
def update(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentOption,
    id_: ChildChunkArgument,
    text: TextArgument,
) -> None:
    """Replace the text of a child chunk.

    On Dify 1.8.1 every update fails: the server does not find the child chunk.
    """

    async def main(client: AsyncClient) -> None:
        parents = await _find_parents(client, dataset, document)
        _print_child_chunk(context, await client.child_chunks.update(*parents, segment, id_, text))

    run_with_client(context, main)


@child_chunks.command("delete")
def delete(
    context: typer.Context,
    dataset: DatasetOption,
    document: DocumentOption,
    segment: SegmentOption,
    ids: ChildChunkArguments,
    yes: YesOption = False,
) -> None:
    """Delete child chunks.

    Asks for confirmation if there are several.
    """
    things = name_lookup.parse_ids("child chunk", ids)

    async def main(client: AsyncClient) -> int:
        parents = await _find_parents(client, dataset, document)
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "child chunk"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things,
            lambda thing: client.child_chunks.delete(*parents, segment, thing.id),
            bulk.ChangeReporter("child chunk", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


async def _find_parents(client: AsyncClient, dataset: str, document: str) -> tuple[str, str]:
    parents = await name_lookup.find_dataset(client, dataset)
    return parents.id, (await name_lookup.find_document(client, parents, document)).id


def _print_child_chunk(context: typer.Context, chunk: ChildChunk) -> None:
    rows = {
        "id": chunk.id,
        "position": chunk.position,
        "type": chunk.type,
        "characters": chunk.word_count,
        "created": chunk.created_at,
        "text": chunk.content,
    }
    output.print_details("child_chunk", chunk, rows, json=is_json_output(context))
