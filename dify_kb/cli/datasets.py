from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb
from dify_kb.errors import ConfigError

from . import bulk, completion, name_lookup, option_types, output
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .option_types import DatasetArgument, DryRunOption, Technique, YesOption
from .run_command import CommandContext, is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, ModelRef
    from dify_kb.models import Unset

datasets = typer.Typer(
    help="Manage datasets (knowledge bases).", no_args_is_help=True, rich_markup_mode=None
)

Permission = Literal["only_me", "all_team_members", "partial_members"]
DatasetPatternOption = Annotated[
    str | None,
    typer.Option("--name", metavar="GLOB", help="Only datasets whose name matches."),
]
MembersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--member",
        metavar="ID",
        help="Account id of a member who sees the dataset (partial_members); repeatable.",
    ),
]
EmbeddingOption = Annotated[
    str | None,
    typer.Option(
        metavar="PROVIDER:MODEL",
        help="Embedding model of a high_quality dataset, as in `dify-kb models list`.",
    ),
]
DescriptionOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Description, at most 400 characters.")
]
PermissionOption = Annotated[
    Permission | None,
    typer.Option(help="Who sees the dataset; default for a new one: only_me."),
]


@datasets.command("list")
def list_(
    context: typer.Context,
    name: DatasetPatternOption = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|ID", help="Only datasets with this tag; repeatable (one must match)."
        ),
    ] = None,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List datasets, newest first."""
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        tags = [(await name_lookup.find_tag(client, each)).id for each in tag or ()]
        await order.print_rows(
            "dataset",
            iterate_datasets(client, context.obj, name=name, tag_ids=tags),
            {
                "name": lambda row: row.name,
                "documents": lambda row: row.document_count,
                "technique": lambda row: row.indexing_technique,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )

    run_with_client(context, main)


async def iterate_datasets(
    client: AsyncClient,
    command: CommandContext,
    *,
    name: str | None = None,
    tag_ids: Sequence[str] = (),
) -> AsyncIterator[Dataset]:
    """Iterate over the datasets whose name matches a glob; all names are kept for completion."""
    from .document_selection import longest_literal

    keyword = longest_literal(name or "")
    rows = client.datasets.iter(keyword=keyword, tag_ids=tag_ids or dify_kb.UNSET, include_all=True)
    names: list[str] = []
    async for row in rows:
        names.append(row.name)
        if name is None or fnmatchcase(row.name, name):
            yield row
    everything = not keyword and not tag_ids
    completion.remember_datasets(command.address, names, everything=everything)


@datasets.command("show")
def show_(context: typer.Context, name: DatasetArgument) -> None:
    """Show a dataset."""

    async def main(client: AsyncClient) -> None:
        _print_dataset(context, await name_lookup.find_dataset(client, name))

    run_with_client(context, main)


@datasets.command("create")
def create(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name, 1 to 40 characters, unique in the workspace, or PROFILE:NAME.",
            callback=option_types.select_dataset,
        ),
    ],
    technique: Annotated[
        Technique | None,
        typer.Option(help="Indexing technique; default: set by the first document."),
    ] = None,
    description: DescriptionOption = None,
    embedding: EmbeddingOption = None,
    permission: PermissionOption = None,
    member: MembersOption = None,
) -> None:
    """Create an empty dataset."""

    async def main(client: AsyncClient) -> int:
        try:
            created = await client.datasets.create(
                name,
                indexing_technique=technique or dify_kb.UNSET,
                description=description or dify_kb.UNSET,
                embedding=parse_model(embedding),
                permission=permission or dify_kb.UNSET,
                partial_member_list=member or dify_kb.UNSET,
            )
        except dify_kb.PartialError as error:
            return bulk.report_partial(error, json=is_json_output(context))
        _print_dataset(context, created)
        return 0

    run_with_client(context, main)


@datasets.command("update")
def update(
    context: typer.Context,
    name: DatasetArgument,
    new_name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Name, 1 to 40 characters, unique in the workspace."
        ),
    ] = None,
    technique: Annotated[
        Technique | None,
        typer.Option(help="Indexing technique; changing it indexes all documents again."),
    ] = None,
    description: DescriptionOption = None,
    embedding: EmbeddingOption = None,
    permission: PermissionOption = None,
    member: MembersOption = None,
) -> None:
    """Change a dataset.

    Values without an option stay unchanged. --member replaces all members.
    """
    if all(
        option is None
        for option in (new_name, technique, description, embedding, permission, member)
    ):
        raise ConfigError("Nothing to change.", hint="Pass --name or another option.")

    async def main(client: AsyncClient) -> None:
        matches = await name_lookup.find_dataset(client, name)
        changed = await client.datasets.update(
            matches,
            name=dify_kb.UNSET if new_name is None else new_name,
            indexing_technique=technique or dify_kb.UNSET,
            description=dify_kb.UNSET if description is None else description,
            embedding=parse_model(embedding),
            permission=permission or dify_kb.UNSET,
            partial_member_list=member or dify_kb.UNSET,
        )
        _print_dataset(context, changed)

    run_with_client(context, main)


@datasets.command("delete")
def delete(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|ID",
            help="Names or ids of datasets, or PROFILE:NAME.",
            callback=option_types.select_datasets,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    name: DatasetPatternOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Delete datasets with all their documents.

    Asks for confirmation if there are several, or if they have documents.
    """
    if bool(names) == bool(name):
        raise ConfigError(
            "Names and --name cannot be combined." if names else "No dataset selected.",
            hint="Pass names or ids of datasets, or --name GLOB.",
        )

    async def main(client: AsyncClient) -> int:
        if name:
            rows = iterate_datasets(client, context.obj, name=name)
            matches = {row.id: row async for row in rows}
        else:
            named = [
                await name_lookup.find_dataset(client, name_or_id) for name_or_id in names or ()
            ]
            matches = {row.id: row for row in named}
        things = [ResourceRef(row.id, row.name) for row in matches.values()]
        reporter = bulk.ChangeReporter("dataset", "deleted", json=is_json_output(context))
        if dry_run:
            return reporter.report_dry_run(things)
        documents = sum(row.document_count or 0 for row in matches.values())
        if len(matches) > 1 or any(row.document_count != 0 for row in matches.values()):
            what = bulk.format_count(len(matches), "dataset")
            descriptions = [
                f"{row.name} ({row.document_count or 0:,} documents)" for row in matches.values()
            ]
            await bulk.confirm_deletion(
                f"{what} with {bulk.format_count(documents, 'document')}", descriptions, yes=yes
            )
        return await bulk.change_each(
            things, lambda thing: client.datasets.delete(thing.id), reporter
        )

    run_with_client(context, main)


def parse_model(text: str | None) -> ModelRef | Unset:
    """Parse a model: `PROVIDER:MODEL`; UNSET without a text.

    Raises:
        ConfigError: the text is not of this form.
    """
    if text is None:
        return dify_kb.UNSET
    provider, colon, model = text.partition(":")
    if not (provider and colon and model):
        raise ConfigError(
            f"Invalid model {text!r} for --embedding.",
            hint="Pass PROVIDER:MODEL, as `dify-kb models list` shows it.",
        )
    return dify_kb.ModelRef(provider=provider, model=model)


def _print_dataset(context: typer.Context, dataset: Dataset) -> None:
    model = dataset.embedding_model
    members = dataset.partial_member_list
    rows = {
        "id": dataset.id,
        "name": dataset.name,
        "description": dataset.description or None,
        "technique": dataset.indexing_technique,
        "embedding": f"{dataset.embedding_model_provider}:{model}" if model else None,
        "chunk structure": dataset.doc_form,
        "documents": dataset.document_count,
        "available": dataset.total_available_documents,
        "characters": dataset.word_count,
        "permission": dataset.permission,
        "members": ", ".join(members) if members else None,
        "tags": ", ".join(str(tag["name"]) for tag in dataset.tags or ()) or None,
        "created": dataset.created_at,
        "updated": dataset.updated_at,
    }
    output.print_details("dataset", dataset, rows, json=is_json_output(context))
