from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import dify_kb
from dify_kb.errors import ConfigError

from . import bulk, name_lookup, option_types, output
from .bulk import ChangeReporter
from .list_options import LimitOption, RowOrder, SortOption
from .name_lookup import ResourceRef
from .option_types import (
    AllOption,
    DatasetOption,
    DocumentArguments,
    DryRunOption,
    FilterOption,
    MetadataOption,
    NamePatternOption,
    StatusOption,
    YesOption,
)
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, MetadataField
    from dify_kb.models import BuiltInField

metadata = typer.Typer(
    help="Manage metadata fields and their values.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FieldArgument = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="Name or id of the metadata field.")
]


@metadata.command("list")
def list_(
    context: typer.Context,
    dataset: DatasetOption,
    built_in: Annotated[
        bool,
        typer.Option("--built-in", help="List the built-in fields, which the server fills in."),
    ] = False,
    sort: SortOption = None,
    limit: LimitOption = None,
) -> None:
    """List the metadata fields of a dataset.

    Prints the number of documents that have a value for each field.
    """
    order = RowOrder(sort, limit)

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        if built_in:
            await order.print_rows(
                "built_in_field",
                await client.metadata.built_in_fields(target),
                {"name": _field_name, "type": lambda row: row.type},
                json=is_json_output(context),
            )
            return
        response = await client.metadata.list(target)
        await order.print_rows(
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
            state = "enabled" if response.built_in_field_enabled else "disabled"
            output.note(f"Built-in fields are {state}.")

    run_with_client(context, main)


@metadata.command("show")
def show_(context: typer.Context, dataset: DatasetOption, name: FieldArgument) -> None:
    """Show a metadata field."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        fields = (await client.metadata.list(target)).doc_metadata
        _print_field(context, select_field(fields, name, target))

    run_with_client(context, main)


@metadata.command("create")
def create(
    context: typer.Context,
    dataset: DatasetOption,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name, 1 to 255 characters, unique in the dataset."),
    ],
    type_: Annotated[
        Literal["string", "number", "time"], typer.Option("--type", help="Type of the values.")
    ] = "string",
) -> None:
    """Create a metadata field in a dataset."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        _print_field(context, await client.metadata.create(target, name, type=type_))

    run_with_client(context, main)


@metadata.command("update")
def update(
    context: typer.Context,
    dataset: DatasetOption,
    name: FieldArgument,
    new_name: Annotated[
        str,
        typer.Argument(
            metavar="NEW_NAME", help="Name, 1 to 255 characters, unique in the dataset."
        ),
    ],
) -> None:
    """Rename a metadata field."""

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        field = await name_lookup.find_metadata_field(client, target, name)
        _print_field(context, await client.metadata.update(target, field.id, new_name))

    run_with_client(context, main)


@metadata.command("delete")
def delete(
    context: typer.Context,
    dataset: DatasetOption,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|ID", help="Names or ids of metadata fields.")
    ],
    yes: YesOption = False,
) -> None:
    """Delete metadata fields with their values.

    Asks for confirmation if there are several.
    """

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        found = [await name_lookup.find_metadata_field(client, target, name) for name in names]
        things = list({thing.id: thing for thing in found}.values())
        if len(things) > 1:
            await bulk.confirm_deletion(
                bulk.format_count(len(things), "metadata field"), [*map(str, things)], yes=yes
            )
        return await bulk.change_each(
            things,
            lambda thing: client.metadata.delete(target, thing.id),
            bulk.ChangeReporter("metadata field", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


@metadata.command("built-in")
def built_in(
    context: typer.Context,
    dataset: DatasetOption,
    action: Annotated[
        Literal["enable", "disable"],
        typer.Argument(metavar="ACTION", help="enable shows the fields, disable hides them."),
    ],
) -> None:
    """Enable or disable the built-in metadata fields of a dataset."""

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
    names: DocumentArguments = None,
    pairs: MetadataOption = None,
    name: NamePatternOption = None,
    status: StatusOption = None,
    filter_: FilterOption = None,
    all_: AllOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Set metadata of documents, selected by name, id or condition.

    Other values stay unchanged. Pass a time as 2024-12-31 (UTC), as
    2024-12-31T18:00+01:00, or as seconds since 1970.
    """
    from . import document_selection

    selection = document_selection.parse_selection(names, name, status, filter_, everything=all_)
    assignments = option_types.parse_pairs("--metadata", pairs or ())
    if not assignments:
        raise ConfigError("Missing option --metadata.", hint="Pass --metadata FIELD=VALUE.")

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        fields = (await client.metadata.list(target)).doc_metadata
        values = convert_values(assignments, fields, target)
        things = await document_selection.select_documents(client, target, selection)
        reporter = bulk.ChangeReporter(
            "document", "updated", json=is_json_output(context), action="Metadata set on"
        )
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


def convert_values(
    assignments: Mapping[str, str | int | float], fields: Sequence[MetadataField], target: Dataset
) -> Mapping[str, Value]:
    """Convert each value to the type of its field.

    The server does not convert values, and filters do not match values of a wrong type.

    Raises:
        KnowledgeError: a field does not exist.
        ConfigError: a value cannot be converted.
    """
    values: dict[str, Value] = {}
    for name, value in assignments.items():
        field = select_field(fields, name, target)
        field.make_value(value)
        values[field.name] = value
    return values


def select_field(
    fields: Sequence[MetadataField], name_or_id: str, target: Dataset
) -> MetadataField:
    """Return the field with this name or id.

    Raises:
        KnowledgeError: the field does not exist.
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
    """Print the result of each document, and return the exit code.

    Raises:
        KnowledgeError: an error stopped the assignment before all documents were updated.
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


def format_value(entry: Mapping[str, object]) -> str:
    """Return a metadata value as text; a time, which servers send in seconds, as a date."""
    value = entry.get("value")
    seconds = (
        option_types.parse_number(str(value))
        if entry.get("type") == dify_kb.MetadataType.TIME
        else None
    )
    if seconds is not None:
        with suppress(ValueError, OverflowError, OSError):  # out of the range of dates
            value = datetime.fromtimestamp(seconds, UTC)
    formatted = output.format_cell(value) if value is None or isinstance(value, datetime) else value
    return f"{entry['name']}={formatted}"
