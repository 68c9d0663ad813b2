from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import name_lookup, option_types
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient

ArchiveArgument = Annotated[
    Path,
    typer.Argument(
        metavar="ARCHIVE",
        help="Folder of the archive, or a file that ends with .zip.",
        parser=option_types.parse_path,
    ),
]
FilesOption = Annotated[bool, typer.Option("--without-files", help="Leave out the original files.")]
FullOption = Annotated[
    bool,
    typer.Option(
        "--full",
        help="Read all documents, not only those that changed in the list of documents: an edit of"
        " the same length, new keywords or a disabled chunk do not show there.",
    ),
]


def export(
    context: typer.Context,
    dataset: option_types.DatasetArgument,
    archive: ArchiveArgument,
    without_files: FilesOption = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only documents whose name matches; repeatable."),
    ] = None,
    filter_: option_types.FilterOption = None,
    full: FullOption = False,
    concurrency: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=option_types.MAX_CONCURRENCY,
            help="Documents read at a time.",
        ),
    ] = 4,
    dry_run: option_types.DryRunOption = False,
) -> None:
    """Export a dataset to an archive.

    Saves documents with their chunks, states and metadata, settings, tags and original files. Run
    the same command again to continue after an interruption, or to read only what changed.
    """
    from . import archive_output, document_selection

    conditions = document_selection.parse_conditions(filter_ or ())

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        condition = await document_selection.resolve_conditions(client, target, conditions)
        report = await client.export(
            target,
            archive,
            files=not without_files,
            only=only or (),
            filter=condition,
            full=full,
            concurrency=concurrency,
            dry_run=dry_run,
            on_event=archive_output.ArchiveProgressPrinter(),
        )
        archive_output.print_report(
            report,
            lambda: archive_output.print_export(report),
            json=is_json_output(context),
        )
        return report.exit_code

    run_with_client(context, main)
