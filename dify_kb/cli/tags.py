from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from . import bulk, completion, name_lookup, option_types, output
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .option_types import DatasetOption, YesOption
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, Tag

tags = typer.Typer(
    help="Manage tags of datasets (Dify 1.4.2 or later).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TagArgument = Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the tag.")]
TagArguments = Annotated[list[str], typer.Argument(metavar="NAME|ID", help="Names or ids of tags.")]


@tags.command("list")
def list_(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME|ID",
            help="Name or id of the dataset, or PROFILE:NAME; default: tags of all datasets.",
            callback=option_types.select_optional_dataset,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List tags, newest first."""
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        if dataset is not None:
            target = await name_lookup.find_dataset(client, dataset)
            matches = (await client.tags.list_for_dataset(target)).data
            columns = {"name": lambda row: row.name, "id": lambda row: row.id}
            await order.print_rows("tag", matches, columns, json=is_json_output(context))
            return
        await order.print_rows(
            "tag",
            await client.tags.list(),
            {
                "name": lambda row: row.name,
                "datasets": lambda row: row.binding_count,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


@tags.command("show")
def show_(context: typer.Context, name: TagArgument) -> None:
    """Show a tag."""

    async def main(client: AsyncClient) -> None:
        listed = await client.tags.list()
        by_id = {tag.id: tag for tag in listed}
        listing = "Run `dify-kb tags list` to see all tags."
        matches = (
            by_id.get(name) or by_id[name_lookup.select_by_name("tag", name, listed, listing).id]
        )
        _print_tag(context, matches)

    run_with_client(context, main)


@tags.command("create")
def create(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name, 1 to 50 characters, unique in the workspace."),
    ],
) -> None:
    """Create a tag."""

    async def main(client: AsyncClient) -> None:
        _print_tag(context, await client.tags.create(name))

    run_with_client(context, main)


@tags.command("update")
def update(
    context: typer.Context,
    name: TagArgument,
    new_name: Annotated[
        str,
        typer.Argument(
            metavar="NEW_NAME", help="Name, 1 to 50 characters, unique in the workspace."
        ),
    ],
) -> None:
    """Rename a tag."""

    async def main(client: AsyncClient) -> None:
        tag = await name_lookup.find_tag(client, name)
        _print_tag(context, await client.tags.update(tag.id, new_name))

    run_with_client(context, main)


@tags.command("delete")
def delete(context: typer.Context, names: TagArguments, yes: YesOption = False) -> None:
    """Delete tags, and remove them from their datasets.

    Asks for confirmation if there are several.
    """

    async def main(client: AsyncClient) -> int:
        things = await _find_tags(client, names)
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "tag"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things,
            lambda thing: client.tags.delete(thing.id),
            bulk.ChangeReporter("tag", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


@tags.command("bind")
def bind(context: typer.Context, dataset: DatasetOption, names: TagArguments) -> None:
    """Add tags to a dataset."""

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        things = await _find_tags(client, names)
        await client.tags.bind(target, [thing.id for thing in things])
        return _report_all(
            bulk.ChangeReporter("tag", "bound", json=is_json_output(context)), things
        )

    run_with_client(context, main)


@tags.command("unbind")
def unbind(context: typer.Context, dataset: DatasetOption, names: TagArguments) -> None:
    """Remove tags from a dataset."""

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        return await bulk.change_each(
            await _find_bound_tags(client, target, names),
            lambda thing: client.tags.unbind(target, thing.id),
            bulk.ChangeReporter("tag", "unbound", json=is_json_output(context)),
        )

    run_with_client(context, main)


async def _find_tags(client: AsyncClient, names: Sequence[str]) -> Sequence[ResourceRef]:
    matches = [await name_lookup.find_tag(client, name) for name in names]
    return list({thing.id: thing for thing in matches}.values())


async def _find_bound_tags(
    client: AsyncClient, target: Dataset, names: Sequence[str]
) -> Sequence[ResourceRef]:
    """Find tags of a dataset, in its own list: Dify 1.12.1 cannot list the workspace's tags."""
    if all(name_lookup.is_id(name) for name in names):
        return [ResourceRef(name) for name in dict.fromkeys(names)]
    bound_tags = (await client.tags.list_for_dataset(target)).data
    listing = f"Run `dify-kb tags list --dataset {target.id}` to see the tags of the dataset."
    matches = [
        ResourceRef(name)
        if name_lookup.is_id(name)
        else name_lookup.select_by_name("tag", name, bound_tags, listing)
        for name in names
    ]
    return list({thing.id: thing for thing in matches}.values())


def _report_all(reporter: bulk.ChangeReporter, things: Sequence[ResourceRef]) -> int:
    for thing in things:
        reporter.report_changed(thing)
    return reporter.finish()


def _print_tag(context: typer.Context, tag: Tag) -> None:
    rows = {"id": tag.id, "name": tag.name, "datasets": tag.binding_count}
    output.print_details("tag", tag, rows, json=is_json_output(context))
