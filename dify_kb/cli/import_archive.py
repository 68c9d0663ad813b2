from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from . import completion, load_option_types, name_lookup, option_types
from .export import ArchiveArgument
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient

OnExistingChoice = Literal["fail", "skip", "replace"]

OnExistingOption = Annotated[
    OnExistingChoice,
    typer.Option(
        "--on-existing",
        help="Action if the dataset has a document with the name of one of the archive: fail before"
        " anything is changed, skip it, or replace the document.",
    ),
]
RecutOption = Annotated[
    bool,
    typer.Option(
        "--recut", help="Split the original files anew instead of creating the archived chunks."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--embedding",
        metavar="PROVIDER:MODEL",
        help="Embedding model of a new dataset; default: that of the archive.",
    ),
]


def import_archive(
    context: typer.Context,
    archive: ArchiveArgument,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME|ID",
            help="Name or id of the dataset, or PROFILE:NAME; created if it does not exist."
            " Default: the name in the archive.",
            callback=option_types.select_optional_dataset,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    on_existing: OnExistingOption = "fail",
    recut: RecutOption = False,
    embedding: ModelOption = None,
    concurrency: load_option_types.ConcurrencyOption = None,
    rate: load_option_types.RateOption = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Journal of the import; default: one per dataset in ~/.local/state/dify-kb.",
            parser=option_types.parse_path,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the new id of each document by its old one to FILE, as JSON.",
            parser=option_types.parse_path,
        ),
    ] = None,
    dry_run: option_types.DryRunOption = False,
) -> None:
    """Import an archive: the same documents with exactly the same chunks.

    The archive is verified first. Run the same command again to continue after an interruption, or
    to send only what changed in the archive. What the server cannot keep is reported.

    Exit codes: 0 success, 1 damaged archive or other error, 2 invalid options, 3 some documents
    failed, 4 key or plan limit, 5 outage or rate limit: run the same command to resume.
    """
    from dify_kb.ingest.pacing.rate_limit import Rate

    from . import archive_output
    from .datasets import parse_model

    if rate is not None:
        Rate.parse(rate)
    bounds = None if concurrency is None else option_types.parse_range("--concurrency", concurrency)
    model = parse_model(embedding) or None
    is_id = dataset is not None and name_lookup.is_id(dataset)

    async def main(client: AsyncClient) -> int:
        report = await client.import_(
            archive,
            name=None if is_id else dataset,
            dataset_id=dataset if is_id else None,
            on_existing=on_existing,
            recut=recut,
            embedding=model,
            concurrency=bounds,
            rate=rate,
            journal=journal,
            ids=ids,
            dry_run=dry_run,
            on_event=archive_output.ArchiveProgressPrinter(),
        )
        archive_output.print_report(
            report,
            lambda: archive_output.print_import(report),
            json=is_json_output(context),
        )
        return report.exit_code

    run_with_client(context, main)
