from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb

from . import bulk, metadata_values, name_lookup, output
from .name_lookup import Thing
from .options import All, DryRun, InDataset, Names, Pattern, Where, WithStatus, Yes
from .run_command import run_with_client, wants_json

if TYPE_CHECKING:
    from dify_kb import AsyncClient, MetadataField
    from dify_kb.models import BuiltInField

metadata = typer.Typer(
    help="Metadata fields, and their values on documents.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Named = Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the field.")]


@metadata.command("list")
def list_(
    context: typer.Context,
    dataset: InDataset,
    built_in: Annotated[
        bool, typer.Option("--built-in", help="Those that the server fills in by itself.")
    ] = False,
) -> None:
    """List the fields of a dataset.

    Each with the number of documents that have a value.
    """

    async def main(client: AsyncClient) -> None:
        where = await name_lookup.dataset(client, dataset)
        if built_in:
            await output.rows(
                "built_in_field",
                await client.metadata.built_in_fields(where),
                {"name": _name, "type": lambda row: row.type},
                json=wants_json(context),
            )
            return
        answer = await client.metadata.list(where)
        await output.rows(
            "metadata_field",
            answer.doc_metadata,
            {
                "name": _name,
                "type": lambda row: row.type,
                "documents": lambda row: row.count,
                "id": lambda row: row.id,
            },
            json=wants_json(context),
        )
        if not wants_json(context):
            shown = "shown" if answer.built_in_field_enabled else "hidden"
            output.err.print(f"Built-in fields are {shown}.")

    run_with_client(context, main)


@metadata.command("show")
def show_(context: typer.Context, dataset: InDataset, name: Named) -> None:
    """Show one field; the server only lists them."""

    async def main(client: AsyncClient) -> None:
        where = await name_lookup.dataset(client, dataset)
        fields = (await client.metadata.list(where)).doc_metadata
        _show(context, metadata_values.field_of(fields, name, where))

    run_with_client(context, main)


@metadata.command("create")
def create(
    context: typer.Context,
    dataset: InDataset,
    name: Annotated[str, typer.Argument(help="1 to 255 characters, unique in the dataset.")],
    type_: Annotated[
        Literal["string", "number", "time"], typer.Option("--type", help="What its values are.")
    ] = "string",
) -> None:
    """Add a field to a dataset."""

    async def main(client: AsyncClient) -> None:
        where = await name_lookup.dataset(client, dataset)
        _show(context, await client.metadata.create(where, name, type=type_))

    run_with_client(context, main)


@metadata.command("update")
def update(
    context: typer.Context,
    dataset: InDataset,
    name: Named,
    new_name: Annotated[str, typer.Argument(help="Another name.")],
) -> None:
    """Give a field another name."""

    async def main(client: AsyncClient) -> None:
        where = await name_lookup.dataset(client, dataset)
        field = await name_lookup.field(client, where, name)
        _show(context, await client.metadata.update(where, field.id, new_name))

    run_with_client(context, main)


@metadata.command("delete")
def delete(
    context: typer.Context,
    dataset: InDataset,
    names: Annotated[list[str], typer.Argument(metavar="NAME|ID", help="Names or ids of fields.")],
    yes: Yes = False,
) -> None:
    """Delete fields with their values.

    Asks first where there are several.
    """

    async def main(client: AsyncClient) -> int:
        where = await name_lookup.dataset(client, dataset)
        found = [await name_lookup.field(client, where, name) for name in names]
        things = list({thing.id: thing for thing in found}.values())
        if len(things) > 1:
            await bulk.ask(bulk.counted(len(things), "field"), [*map(str, things)], yes=yes)
        return await bulk.one_by_one(
            things,
            lambda thing: client.metadata.delete(where, thing.id),
            bulk.Teller("field", "deleted", json=wants_json(context)),
        )

    run_with_client(context, main)


@metadata.command("built-in")
def built_in(
    context: typer.Context,
    dataset: InDataset,
    action: Annotated[
        Literal["enable", "disable"], typer.Argument(help="Show them, or hide them.")
    ],
) -> None:
    """Show the server's own fields on documents, or hide them."""

    async def main(client: AsyncClient) -> None:
        where = await name_lookup.dataset(client, dataset)
        if action == "enable":
            await client.metadata.enable_built_in(where)
        else:
            await client.metadata.disable_built_in(where)
        teller = bulk.Teller("dataset", f"{action}d", json=wants_json(context))
        teller.ok(Thing(where.id, f"the built-in fields of {where.name}"))

    run_with_client(context, main)


@metadata.command("assign")
def assign(
    context: typer.Context,
    dataset: InDataset,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="May be repeated.")
    ],
    names: Names = None,
    name: Pattern = None,
    status: WithStatus = None,
    filter_: Where = None,
    all_: All = False,
    dry_run: DryRun = False,
) -> None:
    """Set values of documents: those that are named, or all that fit.

    Other values stay. A time is written like 2024-12-31 or 2024-12-31T18:00+01:00 (else UTC), or
    as seconds since the epoch.
    """
    from . import document_selection

    asked = document_selection.wanted(names, name, status, filter_, everything=all_)
    given = metadata_values.parsed(set_)

    async def main(client: AsyncClient) -> int:
        where = await name_lookup.dataset(client, dataset)
        fields = (await client.metadata.list(where)).doc_metadata
        values = metadata_values.typed(given, fields, where)
        things = await document_selection.documents(client, where, asked)
        teller = bulk.Teller("document", "labelled", json=wants_json(context))
        if dry_run:
            return teller.would(things)
        if not things:
            return teller.end()
        done, failed, cause = [thing.id for thing in things], dict[str, str](), None
        try:
            await client.metadata.assign_by_name(where, dict.fromkeys(done, values))
        except dify_kb.PartialError as error:
            done, failed, cause = [*map(str, error.done)], dict(error.failed), error.__cause__
        return metadata_values.told(teller, things, done, failed, cause)

    run_with_client(context, main)


def _name(row: MetadataField | BuiltInField) -> str:
    return row.name


def _show(context: typer.Context, field: MetadataField) -> None:
    rows = {
        "id": field.id,
        "name": field.name,
        "type": field.type,
        "documents": field.count,
    }
    output.one("metadata_field", field, rows, json=wants_json(context))
