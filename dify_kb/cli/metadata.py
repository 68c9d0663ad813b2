from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb
from dify_kb.errors import ConfigError

from . import bulk, name_lookup, option_types, output
from .bulk import ChangeReporter
from .name_lookup import ResourceRef
from .option_types import (
    AllOption,
    DatasetOption,
    DocumentArguments,
    DryRunOption,
    FilterOption,
    NamePatternOption,
    StatusOption,
    YesOption,
)
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, MetadataField
    from dify_kb.models import BuiltInField

metadata = typer.Typer(
    help="Metadata fields, and their values on documents.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FieldArgument = Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the field.")]


@metadata.command("list")
def list_(
    context: typer.Context,
    dataset: DatasetOption,
    built_in: Annotated[
        bool, typer.Option("--built-in", help="Those that the server fills in by itself.")
    ] = False,
) -> None:
    """List the fields of a dataset.

    Each with the number of documents that have a value.
    """

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        if built_in:
            await output.print_rows(
                "built_in_field",
                await client.metadata.built_in_fields(target),
                {"name": _field_name, "type": lambda row: row.type},
                json=is_json_output(context),
            )
            return
        response = await client.metadata.list(target)
        await output.print_rows(
            "metadata_field",
            response.doc_metadata,
            {
                "name": _field_name,
                "type": lambda row: row.type,
                "documents": lambda row: row.count,
                "id": lambda row: row.id,
            },
            json=is_json_output(context),
        )
        if not is_json_output(context):
            visibility = "shown" if response.built_in_field_enabled else "hidden"
            output.err.print(f"Built-in fields are {visibility}.")

    run_with_client(context, main)


@metadata.command("show")
def show_(context: typer.Context, dataset: DatasetOption, name: FieldArgument) -> None:
    """Show one field; the server only lists them."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        fields = (await client.metadata.list(target)).doc_metadata
        _print_field(context, select_field(fields, name, target))

    run_with_client(context, main)


@metadata.command("create")
def create(
    context: typer.Context,
    dataset: DatasetOption,
    name: Annotated[str, typer.Argument(help="1 to 255 characters, unique in the dataset.")],
    type_: Annotated[
        Literal["string", "number", "time"], typer.Option("--type", help="What its values are.")
    ] = "string",
) -> None:
    """Add a field to a dataset."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        _print_field(context, await client.metadata.create(target, name, type=type_))

    run_with_client(context, main)


@metadata.command("update")
def update(
    context: typer.Context,
    dataset: DatasetOption,
    name: FieldArgument,
    new_name: Annotated[str, typer.Argument(help="Another name.")],
) -> None:
    """Give a field another name."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        field = await name_lookup.find_metadata_field(client, target, name)
        _print_field(context, await client.metadata.update(target, field.id, new_name))

    run_with_client(context, main)


@metadata.command("delete")
def delete(
    context: typer.Context,
    dataset: DatasetOption,
    names: Annotated[list[str], typer.Argument(metavar="NAME|ID", help="Names or ids of fields.")],
    yes: YesOption = False,
) -> None:
    """Delete fields with their values.

    Asks first where there are several.
    """

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        found = [await name_lookup.find_metadata_field(client, target, name) for name in names]
        things = list({thing.id: thing for thing in found}.values())
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "field"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things,
            lambda thing: client.metadata.delete(target, thing.id),
            bulk.ChangeReporter("field", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


@metadata.command("built-in")
def built_in(
    context: typer.Context,
    dataset: DatasetOption,
    action: Annotated[
        Literal["enable", "disable"], typer.Argument(help="Show them, or hide them.")
    ],
) -> None:
    """Show the server's own fields on documents, or hide them."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        if action == "enable":
            await client.metadata.enable_built_in(target)
        else:
            await client.metadata.disable_built_in(target)
        reporter = bulk.ChangeReporter("dataset", f"{action}d", json=is_json_output(context))
        reporter.report_changed(ResourceRef(target.id, f"the built-in fields of {target.name}"))

    run_with_client(context, main)


@metadata.command("assign")
def assign(
    context: typer.Context,
    dataset: DatasetOption,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="May be repeated.")
    ],
    names: DocumentArguments = None,
    name: NamePatternOption = None,
    status: StatusOption = None,
    filter_: FilterOption = None,
    all_: AllOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Set values of documents: those that are named, or all that fit.

    Other values stay. A time is written like 2024-12-31 or 2024-12-31T18:00+01:00 (else UTC), or
    as seconds since the epoch.
    """
    from . import document_selection

    selection = document_selection.parse_selection(names, name, status, filter_, everything=all_)
    assignments = parse_assignments(set_)

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        fields = (await client.metadata.list(target)).doc_metadata
        values = convert_values(assignments, fields, target)
        things = await document_selection.select_documents(client, target, selection)
        reporter = bulk.ChangeReporter("document", "labelled", json=is_json_output(context))
        if dry_run:
            return reporter.report_dry_run(things)
        if not things:
            return reporter.finish()
        assigned_ids, failed, cause = [thing.id for thing in things], dict[str, str](), None
        try:
            await client.metadata.assign_by_name(target, dict.fromkeys(assigned_ids, values))
        except dify_kb.PartialError as error:
            assigned_ids, failed, cause = (
                [*map(str, error.done)],
                dict(error.failed),
                error.__cause__,
            )
        return report_assignments(reporter, things, assigned_ids, failed, cause)

    run_with_client(context, main)


def _field_name(row: MetadataField | BuiltInField) -> str:
    return row.name


def _print_field(context: typer.Context, field: MetadataField) -> None:
    rows = {
        "id": field.id,
        "name": field.name,
        "type": field.type,
        "documents": field.count,
    }
    output.print_details("metadata_field", field, rows, json=is_json_output(context))


Value = str | float | datetime


def parse_assignments(texts: Sequence[str]) -> Mapping[str, str]:
    """Read `FIELD=VALUE`s.

    Raises:
        ConfigError: one that is none.
    """
    assignments: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"--set is {text!r}.", hint="Write FIELD=VALUE.")
        assignments[name.strip()] = value.strip()
    return assignments


def convert_values(
    assignments: Mapping[str, str], fields: Sequence[MetadataField], target: Dataset
) -> Mapping[str, Value]:
    """Give each value the type of its field: the server does not, and searches would not match.

    Raises:
        KnowledgeError: there is no such field.
        ConfigError: a value is not of its type.
    """
    values: dict[str, Value] = {}
    for name, text in assignments.items():
        field = select_field(fields, name, target)
        values[field.name] = _parse_field_value(field, text)
    return values


def select_field(
    fields: Sequence[MetadataField], name_or_id: str, target: Dataset
) -> MetadataField:
    """Choose a field by its name or its id.

    Raises:
        KnowledgeError: there is none.
    """
    by_id = {field.id: field for field in fields}
    if name_or_id in by_id:
        return by_id[name_or_id]
    return by_id[name_lookup.select_metadata_field(fields, name_or_id, target).id]


def report_assignments(
    reporter: ChangeReporter,
    things: Sequence[ResourceRef],
    assigned_ids: Sequence[str],
    failed: Mapping[str, str],
    cause: BaseException | None,
) -> int:
    """Tell what became of each document, and give the exit code.

    Raises:
        KnowledgeError: what ended it before all were reached.
    """
    set_ = set(assigned_ids)
    for thing in things:
        if thing.id in set_:
            reporter.report_changed(thing)
        elif thing.id in failed:
            reporter.report_refused(thing, dify_kb.KnowledgeError(failed[thing.id]))
    code = reporter.finish()
    if isinstance(cause, dify_kb.KnowledgeError):
        raise cause
    return code


def _parse_field_value(field: MetadataField, text: str) -> Value:
    if field.type == dify_kb.MetadataType.STRING:
        return text
    number = option_types.parse_number(text)
    if number is not None:
        return number
    if field.type == dify_kb.MetadataType.TIME:
        return option_types.parse_time(f"field {field.name!r} of type time", text)
    raise ConfigError(
        f"{field.name} is a field of type {field.type}; the value is {text!r}.",
        hint="Pass a number.",
    )
